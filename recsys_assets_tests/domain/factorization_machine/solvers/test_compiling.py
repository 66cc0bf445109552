"""A model is the same, whether a process compiles the loops or finds them in numba's cache."""

import subprocess
import sys
from pathlib import Path

import pytest

from recsys_assets_tests.conftest import PROJECT

PROGRAM = """
import hashlib, sys
import numpy as np
from scipy.sparse import csr_matrix, hstack
from recsys_assets.domain.factorization_machine.estimator import FactorizationMachineEstimator
from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters

generator = np.random.default_rng(0)
columns = generator.integers([0, 70], [70, 90], (600, 2))
pairs = csr_matrix((np.ones(1200, np.float32), columns.ravel(), np.arange(0, 1201, 2)), (600, 90))
shares = generator.random((600, 6)) * (generator.random((600, 6)) < 0.4)
y = generator.integers(1, 6, 600).astype(np.float32)
for X in (pairs, csr_matrix(hstack([pairs, shares]), dtype=np.float32)):
    for num_factors in (8, 64):
        hyperparameters = ExtendedHyperparameters(
            feature_dim=X.shape[1], num_factors=num_factors, predictor_type="regressor",
            solver=sys.argv[1], epochs=6, burn_in=2, mini_batch_size=100, linear_lr=0.01,
        )
        model = FactorizationMachineEstimator(hyperparameters).fit(X, y).model_
        parameters = model.linear.tobytes() + model.factors.tobytes() + repr(model.bias).encode()
        print(hashlib.sha256(parameters).hexdigest())
"""


@pytest.mark.parametrize("solver", ["adam", "sgd", "mcmc"])
def test_compiled_and_cached_loops_give_the_same_model(tmp_path: Path, solver: str) -> None:
    def models() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, solver],
            env={"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(PROJECT)},
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    of_compiled = models()
    assert len(set(of_compiled)) == 4
    kept = set(tmp_path.rglob("*.nbc"))
    assert kept
    assert models() == of_compiled
    assert set(tmp_path.rglob("*.nbc")) == kept
