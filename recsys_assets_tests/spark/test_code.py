"""What is sent along with the script is what it imports, and no more."""

import ast
import sys
import zipfile
from io import BytesIO

import pytest

from recsys_assets.resources.spark.code import SCRIPT, fingerprint, packed_modules

OLDEST_PYTHON = (3, 9)  # of EMR Serverless 7
SENT = {
    name: text.read()
    for archive in [zipfile.ZipFile(BytesIO(packed_modules()))]
    for name in archive.namelist()
    for text in [archive.open(name)]
}
SOURCES = {**SENT, "filter_ratings.py": SCRIPT.read_bytes()}


def imports(source: bytes) -> set[str]:
    """Return the modules that a module imports when it runs, or for its annotations."""
    nodes = [*ast.walk(ast.parse(source))]
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}  # type: ignore[misc]


@pytest.mark.parametrize("name", SOURCES)
def test_a_file_that_is_sent_is_of_the_oldest_python(name: str) -> None:
    ast.parse(SOURCES[name], feature_version=OLDEST_PYTHON)


@pytest.mark.parametrize("name", SOURCES)
def test_a_file_that_is_sent_imports_nothing_that_a_cluster_has_not(name: str) -> None:
    for module in imports(SOURCES[name]):
        top = module.partition(".")[0]
        sent = f"{module.replace('.', '/')}.py"
        assert top in sys.stdlib_module_names or top == "pyspark" or sent in SENT, module


def test_every_file_that_is_sent_is_needed() -> None:
    needed = {
        f"{'/'.join(module.split('.')[:length])}{end}"
        for source in SOURCES.values()
        for module in imports(source)
        for length in range(1, 6)
        for end in (".py", "/__init__.py")
    }
    assert SENT.keys() - needed == set()


def test_the_same_files_have_the_same_bytes_and_name() -> None:
    assert packed_modules() == packed_modules()
    assert fingerprint(b"one", b"two") == fingerprint(b"one", b"two")
    assert fingerprint(b"one", b"two") != fingerprint(b"onet", b"wo")
