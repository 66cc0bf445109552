"""The average of samples: what it predicts, whatever rotations their factors have."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import ortho_group

from recsys_assets.domain.factorization_machine.solvers.averaging import InteractionAverage


def blocks_of_factors(seed: int, sizes: Sequence[int], k: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(size, k)).astype(np.float32) for size in sizes]


def ones(sizes: Sequence[int]) -> list[np.ndarray]:
    return [np.ones(size, np.float32) for size in sizes]


@pytest.mark.parametrize("sizes", [(30, 20), (30, 20, 10)])
def test_samples_that_differ_by_rotations_have_the_interactions_of_each(
    sizes: tuple[int, ...],
) -> None:
    factors = blocks_of_factors(0, sizes, 4)
    average = InteractionAverage(ones(sizes), [False] * len(sizes))
    for seed in range(20):
        rotation = ortho_group.rvs(4, random_state=seed).astype(np.float32)
        rotated = [block @ rotation for block in factors]
        average.add(rotated, rotated)
    for a in range(len(sizes)):
        for b in range(a):
            found = average.factors[a] @ average.factors[b].T
            np.testing.assert_allclose(found, factors[a] @ factors[b].T, atol=1e-3)


def test_of_two_blocks_it_comes_near_the_best_approximation_there_is() -> None:
    """By the theorem of Eckart and Young, the truncated singular value decomposition."""
    sizes, k = (40, 30), 3
    common = blocks_of_factors(1, sizes, k)
    average, total = InteractionAverage(ones(sizes), [False, False]), np.zeros(sizes)
    plain = [np.zeros((size, k)) for size in sizes]
    for seed in range(200):
        rotation = ortho_group.rvs(k, random_state=seed).astype(np.float32)
        noise = blocks_of_factors(seed + 2, sizes, k)
        sample = [(c + 0.5 * n) @ rotation for c, n in zip(common, noise, strict=True)]
        average.add(sample, sample)
        total += sample[0] @ sample[1].T
        plain = [p + s / 200 for p, s in zip(plain, sample, strict=True)]
    mean = total / 200
    u, s, v = np.linalg.svd(mean)
    best = np.linalg.norm(mean - (u[:, :k] * s[:k]) @ v[:k])
    found = np.linalg.norm(mean - average.factors[0] @ average.factors[1].T)
    assert best <= found < 1.05 * best
    assert np.linalg.norm(mean - plain[0] @ plain[1].T) > 5 * best  # what is not done here


def test_features_that_no_record_has_do_not_count() -> None:
    sizes = (20, 15)
    factors = blocks_of_factors(3, sizes, 2)
    weights = ones(sizes)
    weights[0][:5] = 0
    average = InteractionAverage(weights, [False, False])
    for seed in range(30):
        sample = [block.copy() for block in factors]
        sample[0][:5] = 10 * blocks_of_factors(seed, (5,), 2)[0]
        average.add(sample, sample)
    found = average.factors[0] @ average.factors[1].T
    np.testing.assert_allclose(found[5:], (factors[0] @ factors[1].T)[5:], atol=1e-4)


def test_the_expected_factors_of_a_block_stand_for_its_draws() -> None:
    """With the first block known, a mean over the second's noise needs no samples of it."""
    sizes, k = (25, 20), 2
    first, second = blocks_of_factors(4, sizes, k)
    average = InteractionAverage(ones(sizes), [False, False])
    for seed in range(50):
        noise = blocks_of_factors(seed, sizes, k)[1]
        average.add([first, second + 5 * noise], [first, second])
    np.testing.assert_allclose(
        average.factors[0] @ average.factors[1].T, first @ second.T, atol=1e-3
    )


def test_interactions_within_a_block_count_if_it_has_any() -> None:
    factors = blocks_of_factors(5, (30,), 3)
    within, without = (InteractionAverage(ones((30,)), [has]) for has in (True, False))
    for seed in range(50):
        rotated = [factors[0] @ ortho_group.rvs(3, random_state=seed).astype(np.float32)]
        within.add(rotated, rotated)
        without.add(rotated, rotated)
    found = within.factors[0] @ within.factors[0].T
    np.testing.assert_allclose(found, factors[0] @ factors[0].T, atol=1e-2)
    np.testing.assert_array_equal(
        without.factors[0], factors[0] @ ortho_group.rvs(3, random_state=0).astype(np.float32)
    )


def test_factors_that_are_zero_are_no_trouble() -> None:
    nothing = [np.zeros((4, 2), np.float32), np.zeros((3, 2), np.float32)]
    average = InteractionAverage(ones((4, 3)), [False, False])
    for _ in range(3):
        average.add(nothing, nothing)
    assert all((factors == 0).all() for factors in average.factors)
