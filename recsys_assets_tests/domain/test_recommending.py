"""Recommendations: a hand-made model, and batches against one-by-one scoring."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys_assets.domain import recommending
from recsys_assets.domain.factorization_machine.model import FactorizationMachine
from recsys_assets.domain.recommending import recommend

NOTHING_SEEN = (np.array([], np.int32), np.array([], np.int32))


def machine(customers: int, videos: int, factors: int = 3, seed: int = 0) -> FactorizationMachine:
    rng = np.random.default_rng(seed)
    size = customers + videos
    return FactorizationMachine(
        predictor_type="regressor",
        bias=3.5,
        linear=rng.normal(size=size).astype(np.float32),
        factors=rng.normal(size=(size, factors)).astype(np.float32),
    )


def collected(*args, **kwargs) -> dict[int, list[tuple[int, float]]]:
    found: dict[int, list[tuple[int, float]]] = {}
    for customer, video, score in recommend(*args, **kwargs):
        for c, v, s in zip(customer.tolist(), video.tolist(), score.tolist(), strict=True):
            found.setdefault(c, []).append((v, s))
    return found


def test_a_taste_decides_and_what_was_seen_is_left_out() -> None:
    # Two customers of opposite taste, three videos: one for each taste, one that all like.
    model = FactorizationMachine(
        predictor_type="regressor",
        bias=3.0,
        linear=np.array([0, 0, 0, 0, 0.5], np.float32),
        factors=np.array([[1], [-1], [1], [-1], [0]], np.float32),
    )
    seen = (np.array([0], np.int32), np.array([0], np.int32))
    assert collected(model, 2, 3, seen, count=2) == {
        0: [(2, 3.5), (1, 2.0)],
        1: [(1, 4.0), (2, 3.5)],
    }


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 15), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_batches_give_what_scoring_one_by_one_gives(
    customers: int, videos: int, count: int, seed: int
) -> None:
    model = machine(customers, videos, seed=seed)
    rated = np.random.default_rng(seed).random((customers, videos)) < 0.3
    seen = tuple(part.astype(np.int32) for part in np.nonzero(rated))
    found = collected(model, customers, videos, seen, count=count)
    for customer in range(customers):
        features = np.zeros((videos, customers + videos), np.float32)
        features[:, customer] = 1
        features[np.arange(videos), customers + np.arange(videos)] = 1
        scores = model.predict(csr_matrix(features))
        unseen = np.flatnonzero(~rated[customer])
        expected = unseen[np.argsort(-scores[unseen], kind="stable")][:count]
        got = found.get(customer, [])
        assert [video for video, _ in got] == expected.tolist()
        np.testing.assert_allclose([s for _, s in got], scores[expected], rtol=1e-4, atol=1e-4)


def test_equal_scores_come_from_the_lowest_index_up() -> None:
    model = FactorizationMachine(
        predictor_type="regressor",
        bias=3.0,
        linear=np.zeros(7, np.float32),
        factors=np.zeros((7, 2), np.float32),
    )
    assert collected(model, 1, 6, NOTHING_SEEN, count=3) == {0: [(0, 3.0), (1, 3.0), (2, 3.0)]}


def test_blocks_of_customers_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    model = machine(20, 9)
    whole = collected(model, 20, 9, NOTHING_SEEN, count=4)
    monkeypatch.setattr(recommending, "_SCORES_PER_BLOCK", 27)
    assert {c: [v for v, _ in r] for c, r in whole.items()} == {
        c: [v for v, _ in r] for c, r in collected(model, 20, 9, NOTHING_SEEN, count=4).items()
    }


def test_a_model_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2 customers and 3 videos = 5 features, got 6"):
        collected(machine(3, 3), 2, 3, NOTHING_SEEN, count=1)
