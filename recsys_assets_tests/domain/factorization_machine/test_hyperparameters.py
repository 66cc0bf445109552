"""Hyperparameters: documented names, defaults and values, and the built-in's refusals."""

import pytest
from pydantic import ValidationError

from recsys_assets.domain.factorization_machine.hyperparameters import (
    HyperparameterError,
    Hyperparameters,
)

REQUIRED = {"feature_dim": "2623", "num_factors": "64", "predictor_type": "regressor"}


def test_the_defaults_are_those_that_the_built_in_logs() -> None:
    # the container's default-conf.json, without its internal settings
    assert {name: float(v) for name, v in Hyperparameters.defaults().items() if v != "normal"} == {
        "epochs": 1,
        "mini_batch_size": 1000,
        "bias_lr": 0.1,
        "linear_lr": 0.001,
        "factors_lr": 0.0001,
        "bias_wd": 0.01,
        "linear_wd": 0.001,
        "factors_wd": 0.00001,
        "bias_init_sigma": 0.01,
        "linear_init_sigma": 0.01,
        "factors_init_sigma": 0.001,
    }


def test_strings_become_numbers() -> None:
    read = Hyperparameters.from_strings(REQUIRED | {"epochs": "10", "factors_lr": "7.5e-4"})
    assert (read.feature_dim, read.epochs, read.factors_lr) == (2623, 10, 0.00075)
    assert (read.clip_gradient, read.eps, read.rescale_grad) == (None, None, None)


def test_hyperparameters_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Hyperparameters.from_strings(REQUIRED).epochs = 3


def test_names_that_start_with_an_underscore_are_the_containers_own() -> None:
    internal = {"_tuning_objective_metric": "test:rmse", "_anything": ""}
    assert Hyperparameters.from_strings(REQUIRED | internal) == Hyperparameters.from_strings(
        REQUIRED
    )


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["mini_batch_siz"], "('mini_batch_siz' was unexpected)"),
        (["use_bias", "lr"], "('use_bias', 'lr' were unexpected)"),
    ],
)
def test_an_unknown_name_is_refused_in_the_built_ins_words(names: list[str], words: str) -> None:
    with pytest.raises(HyperparameterError) as caught:
        Hyperparameters.from_strings(REQUIRED | dict.fromkeys(names, "1"))
    assert str(caught.value) == f"Additional properties are not allowed {words}"


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_missing_name_is_refused_in_the_built_ins_words(name: str) -> None:
    with pytest.raises(HyperparameterError) as caught:
        Hyperparameters.from_strings({k: v for k, v in REQUIRED.items() if k != name})
    assert str(caught.value) == f"{name!r} is a required property"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("feature_dim", "abc", "positive integer"),
        ("feature_dim", "0", "positive integer"),
        ("num_factors", "64.0", "positive integer"),
        ("epochs", "-1", "positive integer"),
        ("mini_batch_size", "", "positive integer"),
        ("mini_batch_size", "9" * 400, "positive integer"),
        ("bias_lr", "-0.1", "greater than or equal to 0"),
        ("linear_wd", "nan", "finite"),
        ("factors_init_sigma", "inf", "finite"),
        ("clip_gradient", "-1", "greater than or equal to 0"),
        ("rescale_grad", "half", "valid number"),
        ("predictor_type", "multiclass", "'regressor' or 'binary_classifier'"),
        ("linear_init_method", "zeros", "'normal', 'uniform' or 'constant'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_what_was_expected(
    name: str, value: str, expected: str
) -> None:
    with pytest.raises(HyperparameterError) as caught:
        Hyperparameters.from_strings(REQUIRED | {name: value})
    message = str(caught.value)
    assert message.startswith(f"{value!r} is not valid under any of the given schemas")
    assert f"Failed validating {name!r}" in message
    assert expected in message


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(HyperparameterError) as caught:
        Hyperparameters.from_strings({"feature_dim": "x", "num_factors": "2", "epoch": "3"})
    for part in ("'epoch' was unexpected", "'x' is not valid", "'predictor_type' is a required"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("method", "needed"), [("uniform", "scale"), ("constant", "value")])
def test_an_init_method_needs_its_number(method: str, needed: str) -> None:
    with pytest.raises(HyperparameterError, match=f"'bias_init_{needed}' is a required property"):
        Hyperparameters.from_strings(REQUIRED | {"bias_init_method": method})
    Hyperparameters.from_strings(
        REQUIRED | {"bias_init_method": method, f"bias_init_{needed}": "0.5"}
    )
