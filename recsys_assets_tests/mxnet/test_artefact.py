"""Artefacts go both ways between MXNet and us."""

import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import random_array

from recsys_assets.domain.factorization_machine.artefact import read_model, write_model
from recsys_assets.domain.factorization_machine.model import FactorizationMachine
from recsys_assets_tests.contract.environments import MXNET, NoInterpreterError

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("mxnet")]

FEATURES, FACTORS = 300, 7


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of MXNet's environment, which is kept for the next time."""
    try:
        return MXNET.python
    except (NoInterpreterError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs an environment with {', '.join(MXNET.requirements)}: {error}")


@pytest.fixture(params=["regressor", "binary_classifier"])
def model(request: pytest.FixtureRequest) -> FactorizationMachine:
    generator = np.random.default_rng(0)
    return FactorizationMachine(
        request.param,
        float(np.float32(0.3)),
        generator.normal(size=FEATURES).astype(np.float32),
        generator.normal(size=(FEATURES, FACTORS)).astype(np.float32),
    )


def run(python: Path, *arguments: str | Path) -> None:
    program = Path(__file__).with_name("mxnet_program.py")
    done = subprocess.run([python, program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_mxnet_predicts_what_we_predict(
    python: Path, model: FactorizationMachine, tmp_path: Path
) -> None:
    X = random_array((500, FEATURES), density=0.01, format="csr", rng=1, dtype=np.float32)
    assert {0, 1, 2, 5} <= set(np.diff(X.indptr))
    write_model(tmp_path / "model_algo-1", model)
    csr = {"data": X.data, "indices": X.indices, "indptr": X.indptr, "shape": np.array(X.shape)}
    np.savez(tmp_path / "records.npz", **csr)
    run(python, "predict", tmp_path / "model_algo-1", tmp_path / "records.npz", tmp_path / "s.npy")
    scores = np.load(tmp_path / "s.npy")
    assert scores.std() > 0.1
    np.testing.assert_allclose(scores, model.predict(X), rtol=1e-5, atol=1e-5)


def test_we_read_what_mxnet_saves(
    python: Path, model: FactorizationMachine, tmp_path: Path
) -> None:
    model.factors[::3] = 0  # rows that a row-sparse array leaves out
    np.savez(
        tmp_path / "arrays.npz",
        w0_weight=np.array([model.bias], dtype=np.float32),
        w1_weight=model.linear.reshape(-1, 1),
        v=model.factors,
    )
    run(python, "save", tmp_path / "arrays.npz", tmp_path / "params")
    write_model(tmp_path / "ours", model)
    with zipfile.ZipFile(tmp_path / "ours") as archive:
        symbol = archive.read("symbol.json")
    for params in ("params", "params.row_sparse"):
        with zipfile.ZipFile(tmp_path / "theirs", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("symbol.json", symbol)
            archive.write(tmp_path / params, "params")
        read = read_model(tmp_path / "theirs")
        assert (read.predictor_type, read.bias) == (model.predictor_type, model.bias)
        np.testing.assert_array_equal(read.linear, model.linear)
        np.testing.assert_array_equal(read.factors, model.factors)
