"""The models' config offers what the algorithm has, and sends what was set and nothing else."""

import pytest

from recsys_assets.assets.models import Hyperparameters
from recsys_assets.domain.factorization_machine.extensions import (
    ExtendedHyperparameters,
    extensions,
)
from recsys_assets.export.reading import read_graph

# Known once there are ratings: the platform sets the one, and the solver finds the other.
OF_THE_RATINGS = {"feature_dim", "feature_blocks"}


def test_the_config_offers_every_hyperparameter_that_a_person_can_know() -> None:
    known = ExtendedHyperparameters.model_fields.keys()
    assert known - Hyperparameters.model_fields.keys() == OF_THE_RATINGS | {"predictor_type"}
    assert Hyperparameters.model_fields.keys() <= known


def test_nothing_beyond_the_built_in_is_sent_unless_it_is_set() -> None:
    assert extensions(Hyperparameters().as_strings(10)) == []
    set_here = Hyperparameters(solver="mcmc", burn_in=7, early_stopping_patience=3)
    sent = set_here.as_strings(10)
    assert [sent[name] for name in extensions(sent)] == ["7", "3", "mcmc"]
    assert ExtendedHyperparameters.from_strings(sent).solver == "mcmc"


def test_a_solver_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"solver\n.*adam\|sgd\|mcmc"):
        Hyperparameters(solver="als")


def test_an_exported_graph_offers_and_sends_a_solver_only_if_exported_with_one() -> None:
    param = "model_training__hyperparameters__solver"
    for hyperparameters, sent in (({}, None), ({"solver": "mcmc"}, f"${{params.{param}}}")):
        config = {"ops": {"model_training": {"config": {"hyperparameters": hyperparameters}}}}
        graph = read_graph(run_config=config)
        request = graph.task("fm_model").request
        assert request is not None
        assert request["HyperParameters"].get("solver") == sent
        defaults = {found.name: found.default for found in graph.params}
        assert defaults.get(param) == hyperparameters.get("solver")
