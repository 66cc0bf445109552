"""Environments are kept, made again when their pins change, and need an interpreter that fits."""

import subprocess
from pathlib import Path

import pytest

from recsys_assets_tests.contract import environments
from recsys_assets_tests.contract.environments import (
    ENVIRONMENTS,
    Environment,
    NoInterpreterError,
    find_python,
)


@pytest.mark.slow
def test_an_environment_is_kept_until_its_pins_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "FOLDER", tmp_path / "environments")
    monkeypatch.setattr(environments, "_CONSTRAINTS", tmp_path)

    def installed() -> str:
        python = Environment("small", ("six",)).python
        program = "import six; print(six.__version__)"
        return subprocess.check_output([python, "-c", program], text=True).strip()

    (tmp_path / "small.txt").write_text("six==1.16.0\n")
    assert installed() == "1.16.0"
    mark = tmp_path / "environments" / "small" / "mark"  # goes when the environment is made again
    mark.touch()
    assert installed() == "1.16.0"
    assert mark.exists()
    (tmp_path / "small.txt").write_text("six==1.17.0\n")
    assert installed() == "1.17.0"
    assert not mark.exists()


def test_no_interpreter_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "_PYTHONS", ("9.9",))
    with pytest.raises(NoInterpreterError, match=r"no Python 9\.9"):
        find_python()


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_constraints_pin_what_an_environment_requires(environment: Environment) -> None:
    constraints = Path(environments.__file__).with_name("constraints") / f"{environment.name}.txt"
    pins = dict(line.split("==") for line in constraints.read_text().splitlines())
    for requirement in environment.requirements:
        name, _, version = requirement.partition("==")
        assert pins[name.partition("[")[0]] == version
