"""Comparing models of different vocabularies: a hand-made model, and rating by rating."""

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys_assets.domain.factorization_machine.model import FactorizationMachine
from recsys_assets.domain.features import RatingMatrix, Vocabulary
from recsys_assets.domain.selecting import TrainedModel, compare_models, predict_pairs

Pairs = Mapping[tuple[str, str], float]


def vocabulary(ids: Iterable[str]) -> Vocabulary:
    found = sorted(set(ids))
    return Vocabulary(pa.array(found, pa.string()), pa.nulls(len(found), pa.string()))


def matrix(train: Pairs, validate: Pairs) -> RatingMatrix:
    pairs = [*train, *validate]
    customers, videos = (vocabulary(ids) for ids in zip(*pairs, strict=True))
    indices = np.array(
        [(customers.index_of(c), len(customers) + videos.index_of(v)) for c, v in pairs], np.int32
    )
    shape = (len(pairs), len(customers) + len(videos))
    ends = np.arange(0, indices.size + 1, 2)
    return RatingMatrix(
        features=csr_matrix((np.ones(indices.size, np.float32), indices.ravel(), ends), shape),
        labels=np.array([*train.values(), *validate.values()], np.float32),
        split_rows={"train": len(train), "validate": len(validate), "test": 0},
        customers=customers,
        videos=videos,
    )


def trained(train: Pairs, validate: Pairs, seed: int = 0) -> TrainedModel:
    """Return a model of random parameters."""
    its = matrix(train, validate)
    rng = np.random.default_rng(seed)
    machine = FactorizationMachine(
        predictor_type="regressor",
        bias=3.0,
        linear=rng.normal(size=its.feature_dim).astype(np.float32),
        factors=rng.normal(size=(its.feature_dim, 2)).astype(np.float32),
    )
    return TrainedModel(machine, its)


def test_what_a_model_does_not_know_leaves_what_it_knows() -> None:
    known = trained({("ann", "up"): 4.0, ("bob", "up"): 2.0}, {})
    machine = FactorizationMachine(
        predictor_type="regressor",
        bias=3.0,
        linear=np.array([0.5, -0.5, 0.25], np.float32),  # ann, bob, up
        factors=np.array([[1], [2], [3]], np.float32),
    )
    model = TrainedModel(machine, known.matrix)
    customer = np.array([0, 1, -1, 0, -1], np.int32)
    video = np.array([0, 0, 0, -1, -1], np.int32)
    expected = [3.0 + 0.5 + 0.25 + 3.0, 3.0 - 0.5 + 0.25 + 6.0, 3.25, 3.5, 3.0]
    assert predict_pairs(model, customer, video).tolist() == expected


def test_a_model_of_another_matrix_is_refused() -> None:
    one, other = trained({("a", "x"): 1.0}, {}), trained({("a", "x"): 1.0, ("b", "x"): 1.0}, {})
    with pytest.raises(ValueError, match="expected a model of 3 features, as its matrix has, got"):
        TrainedModel(one.model, other.matrix)


def test_ratings_that_the_current_model_was_trained_on_do_not_count() -> None:
    current = trained({("a", "x"): 1.0, ("b", "y"): 2.0}, {("a", "y"): 3.0})
    new = trained({("b", "x"): 1.0}, {("a", "x"): 5.0, ("b", "y"): 5.0, ("c", "y"): 2.0})
    found = compare_models(new, current)
    assert found is not None
    assert found.rows == 1
    only = trained({("b", "x"): 1.0}, {("a", "x"): 5.0, ("b", "y"): 5.0})
    assert compare_models(only, current) is None


def scored(model: TrainedModel, customer: str, video: str) -> float:
    """Score a pair as the model equation says, one feature after the other."""
    known = []
    for identifier, ids, first in (
        (customer, model.matrix.customers, 0),
        (video, model.matrix.videos, len(model.matrix.customers)),
    ):
        if identifier in ids.ids.to_pylist():
            known.append(first + ids.index_of(identifier))
    score = model.model.bias + float(sum(model.model.linear[known]))
    if len(known) == 2:
        score += float(np.prod(model.model.factors[known], axis=0).sum())
    return score


@st.composite
def ratings(draw: st.DrawFn) -> Pairs:
    pairs = st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz"))
    return draw(st.dictionaries(pairs, st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0]), min_size=1))


@given(ratings(), ratings(), ratings(), st.integers(0, 99))
@settings(deadline=None, max_examples=80)
def test_a_comparison_is_what_comparing_rating_by_rating_gives(
    before: Pairs, train: Pairs, validate: Pairs, seed: int
) -> None:
    current, new = trained(before, {}, seed), trained(train, validate, seed + 1)
    fair = {pair: rating for pair, rating in validate.items() if pair not in before}
    found = compare_models(new, current)
    if not fair:
        assert found is None
        return
    assert found is not None
    assert found.rows == len(fair)
    for model, rmse in ((new, found.new_rmse), (current, found.current_rmse)):
        residuals = [scored(model, *pair) - rating for pair, rating in fair.items()]
        assert rmse == pytest.approx(np.sqrt(np.mean(np.square(residuals))), rel=1e-4, abs=1e-4)
