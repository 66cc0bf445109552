"""Hyperparameters beyond the built-in's: read from texts, and refused in its words."""

import pytest

from recsys_assets.domain.factorization_machine.extensions import (
    ExtendedHyperparameters,
    extensions,
)
from recsys_assets.domain.factorization_machine.hyperparameters import (
    HyperparameterError,
    Hyperparameters,
)

REQUIRED = {"feature_dim": "10", "num_factors": "4", "predictor_type": "regressor"}
BAYESIAN = REQUIRED | {"solver": "mcmc", "epochs": "21"}


def refusal(values: dict[str, str]) -> str:
    with pytest.raises(HyperparameterError) as caught:
        ExtendedHyperparameters.from_strings(values)
    return str(caught.value)


def test_the_defaults_do_what_the_built_in_does() -> None:
    read = ExtendedHyperparameters.from_strings(REQUIRED)
    built_in = Hyperparameters.from_strings(REQUIRED)
    assert (read.solver, read.early_stopping_patience) == ("adam", None)
    assert read.model_dump(include=set(Hyperparameters.model_fields)) == built_in.model_dump()
    defaults = ExtendedHyperparameters.defaults()
    added = {name: defaults[name] for name in defaults.keys() - Hyperparameters.defaults().keys()}
    assert added == {"solver": "adam", "burn_in": "10"}


def test_texts_are_read() -> None:
    read = ExtendedHyperparameters.from_strings(
        BAYESIAN
        | {"burn_in": "5", "early_stopping_patience": "3", "feature_blocks": "6,4", "_tuned": "x"}
    )
    assert (read.solver, read.burn_in, read.early_stopping_patience) == ("mcmc", 5, 3)
    assert read.feature_blocks == (6, 4)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("solver", "als", "'adam', 'sgd' or 'mcmc'"),
        ("early_stopping_patience", "0", "positive integer"),
        ("early_stopping_patience", "2.0", "positive integer"),
        ("burn_in", "-1", "positive integer"),
    ],
)
def test_a_wrong_value_is_refused_as_the_built_in_would(
    name: str, value: str, expected: str
) -> None:
    message = refusal(REQUIRED | {name: value})
    assert message.startswith(f"{value!r} is not valid under any of the given schemas")
    assert f"Failed validating {name!r}" in message
    assert expected in message


@pytest.mark.parametrize(("blocks", "told"), [("", "''"), ("4,,6", "''"), ("4;6", "'4;6'")])
def test_blocks_that_are_no_numbers_are_refused(blocks: str, told: str) -> None:
    message = refusal(REQUIRED | {"feature_blocks": blocks})
    assert message.startswith(f"{told} is not valid under any of the given schemas")
    assert "Failed validating 'feature_blocks': Input should be a positive integer" in message


def test_values_that_do_not_go_together_are_refused() -> None:
    assert refusal(BAYESIAN | {"predictor_type": "binary_classifier"}) == (
        "'solver' 'mcmc' needs 'predictor_type' 'regressor'"
    )
    assert refusal(BAYESIAN | {"epochs": "10"}) == (
        "'epochs' (10) must be greater than 'burn_in' (10) when 'solver' is 'mcmc'"
    )
    assert refusal(REQUIRED | {"feature_blocks": "6,5"}) == (
        "'feature_blocks' must add up to 'feature_dim' (10), not to 11"
    )
    ExtendedHyperparameters.from_strings(REQUIRED | {"epochs": "1"})  # no sweeps, no burn-in


def test_an_unknown_name_is_refused_in_the_built_ins_words() -> None:
    assert refusal(REQUIRED | {"patience": "3"}) == (
        "Additional properties are not allowed ('patience' was unexpected)"
    )


def test_the_built_in_refuses_every_extension() -> None:
    names = extensions(ExtendedHyperparameters.model_fields)
    assert {"solver", "early_stopping_patience"} <= set(names)
    for name in names:
        with pytest.raises(HyperparameterError, match=f"not allowed \\('{name}' was unexpected"):
            Hyperparameters.from_strings(REQUIRED | {name: "1"})


def test_only_names_that_are_given_are_named() -> None:
    assert extensions(["solver", "epochs", "burn_in", "unknown"]) == ["burn_in", "solver"]
    assert extensions(REQUIRED) == []
