"""Scoring: the model equation on any sparse matrix."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from recsys_assets.domain.factorization_machine import model as model_module
from recsys_assets.domain.factorization_machine import pairs as pairs_module
from recsys_assets.domain.factorization_machine.model import DataError, FactorizationMachine
from recsys_assets.domain.factorization_machine.pairs import score_pairs


def a_model(features: int, factors: int, predictor_type: str = "regressor") -> FactorizationMachine:
    generator = np.random.default_rng(features + factors)
    return FactorizationMachine(
        predictor_type,
        0.25,
        generator.normal(size=features).astype(np.float32),
        generator.normal(size=(features, factors)).astype(np.float32),
    )


def by_the_definition(model: FactorizationMachine, row: np.ndarray) -> float:
    """Return w0 + Σ w_j x_j + Σ_{i<j} (v_i·v_j) x_i x_j, pair by pair."""
    pairs = itertools.combinations(range(len(row)), 2)
    return (
        model.bias
        + float(model.linear @ row)
        + sum(float(model.factors[i] @ model.factors[j]) * row[i] * row[j] for i, j in pairs)
    )


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 6),
    features=st.integers(1, 12),
    factors=st.integers(1, 5),
    density=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_scores_are_those_of_the_pairwise_definition(
    rows: int, features: int, factors: int, density: float, seed: int
) -> None:
    model = a_model(features, factors)
    dense = random_array((rows, features), density=density, rng=seed).toarray().astype(np.float32)
    np.testing.assert_allclose(
        model.predict(csr_matrix(dense)),
        [by_the_definition(model, row) for row in dense],
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_known_answer() -> None:
    model = FactorizationMachine(
        "regressor",
        0.5,
        np.array([1, 2, 3], dtype=np.float32),
        np.array([[1, 0], [2, 1], [0, 3]], dtype=np.float32),
    )
    # bias, linear part and the one pair's factors: 0.5 + 3 + 2, 0.5 + 1 - 6 and 0.5
    X = csr_matrix(np.array([[1, 1, 0], [0, 2, -1], [0, 0, 0]], dtype=np.float32))
    np.testing.assert_array_equal(model.predict(X), np.array([5.5, -4.5, 0.5], dtype=np.float32))


def test_a_classifiers_score_is_a_probability() -> None:
    regressor, classifier = a_model(5, 2), a_model(5, 2, "binary_classifier")
    X = csr_matrix(np.eye(5, dtype=np.float32))
    np.testing.assert_allclose(
        classifier.predict(X), 1 / (1 + np.exp(-regressor.predict(X))), rtol=1e-6
    )


def test_scores_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model = a_model(40, 3)
    X = csr_matrix(random_array((101, 40), density=0.2, rng=1, dtype=np.float32))
    whole = model.predict(X)
    monkeypatch.setattr(model_module, "_BYTES_PER_BLOCK", 7 * 4 * 3)
    np.testing.assert_array_equal(model.predict(X), whole)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 2, 2, 2, 3, 9]), min_size=1, max_size=30),
    factors=st.sampled_from([1, 3, 8, 31, 64]),
    seed=st.integers(0, 1000),
    predictor_type=st.sampled_from(["regressor", "binary_classifier"]),
)
def test_a_records_score_does_not_depend_on_its_company(
    sizes: list[int], factors: int, seed: int, predictor_type: str
) -> None:
    model, generator = a_model(50, factors, predictor_type), np.random.default_rng(seed)
    X = csr_matrix(
        (
            generator.normal(size=sum(sizes)).astype(np.float32),
            np.concatenate([np.sort(generator.permutation(50)[:size]) for size in sizes]),
            np.concatenate([[0], np.cumsum(sizes)]),
        ),
        shape=(len(sizes), 50),
    )
    together = model.predict(X)
    alone = np.concatenate([model.predict(X[row]) for row in range(len(sizes))])
    assert together.tobytes() == alone.tobytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_module, "_BYTES_PER_BLOCK", 5 * 4 * factors)
        assert model.predict(X).tobytes() == together.tobytes()
        patch.setattr(model_module, "_WORTH_COMPILED_CODE", 0)
        assert model.predict(X).tobytes() == together.tobytes()


def test_compiled_code_scores_very_many_pairs_to_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, generator = a_model(300, 37), np.random.default_rng(0)
    pairs = np.sort([generator.permutation(300)[:2] for _ in range(1001)], axis=1)
    values = generator.normal(size=2002).astype(np.float32)
    X = csr_matrix((values, pairs.reshape(-1), np.arange(0, 2003, 2)), shape=(1001, 300))
    expected = model.predict(X)
    calls = []
    monkeypatch.setattr(model_module, "_WORTH_COMPILED_CODE", 1001 * 37)
    monkeypatch.setattr(
        pairs_module, "score_pairs", lambda *given: calls.append(1) or score_pairs(*given)
    )
    assert model.predict(X).tobytes() == expected.tobytes()
    assert calls == [1]
    assert model.predict(X[:1000]).tobytes() == expected[:1000].tobytes()
    assert calls == [1]


def test_scoring_small_requests_does_not_load_the_compiler() -> None:
    program = (
        "import sys, numpy as np; from scipy.sparse import csr_matrix; "
        "from recsys_assets.domain.factorization_machine.model import FactorizationMachine as F; "
        "f = np.ones((3, 2), np.float32); X = csr_matrix(np.ones((2, 3)) - np.eye(2, 3)); "
        "F('regressor', 0.0, f[:, 0].copy(), f).predict(X); "
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_feature_stored_twice_counts_as_the_sum() -> None:
    model = a_model(3, 2)
    twice = csr_matrix((np.array([1, 2, 1], dtype=np.float32), [2, 0, 2], [0, 3]), shape=(1, 3))
    once = csr_matrix(np.array([[2, 0, 2]], dtype=np.float32))
    np.testing.assert_allclose(model.predict(twice), model.predict(once), rtol=1e-6)
    assert twice.nnz == 3  # the caller's matrix is left as it was


def test_records_of_another_width_are_refused() -> None:
    with pytest.raises(DataError, match=r"expected records of 4 features .* got 3"):
        a_model(4, 2).predict(csr_matrix((1, 3), dtype=np.float32))


def test_weights_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected float32 weights of shapes \(n,\) and \(n, k\)"):
        FactorizationMachine(
            "regressor", 0.0, np.zeros(3, np.float32), np.zeros((4, 2), np.float32)
        )
