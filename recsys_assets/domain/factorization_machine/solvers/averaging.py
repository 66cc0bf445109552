"""One factorization machine in the place of many samples of one.

What belongs here: averaging samples so that what they predict is averaged, not what their factors
happen to be. What does not: where samples come from (``bayesian``).

The factors of a factorization machine are settled only up to a rotation, which differs from sample
to sample, so that their plain average predicts worse than the samples do together. Here the
average of the interactions, of which each is v_i·v_j, is kept as the nearest one that a
factorization machine of the same rank can have.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_ROWS_PER_SUM = 4096  # added up in float32 before they go into a float64 sum
_SMALLEST_RATIO = 1e-6  # of eigenvalues that count: below it there is nothing but rounding


class InteractionAverage:
    """The running average of the interactions between blocks of features.

    With Z_a the factors of block a in this average and E[·] the average over samples, it brings
    Σ_{a<b} ‖D_a^½ (E[V_a V_bᵀ] - Z_a Z_bᵀ) D_b^½‖² down: each sample is added by one round of
    alternating least squares over the blocks, starting from the average so far, in which Z_a Z_bᵀ
    stands for the samples before it. For two blocks that is a subspace iteration towards the
    truncated singular value decomposition of the average. Memory is that of one set of factors,
    time O(features · num_factors²) a sample.

    Parameters
    ----------
    weights
        For each block the diagonal of D, float32 of shape ``(features,)``: how much a feature
        counts, zero where it occurs in no record.
    within
        Which blocks have interactions between their own features, which then count as well.
    """

    def __init__(self, weights: Sequence[Floats], within: Sequence[bool]) -> None:
        self._weights = weights
        self._within = within
        self._samples = 0
        self.factors: list[Floats] = []

    def add(self, draws: Sequence[Floats], means: Sequence[Floats]) -> None:
        """Add one sample.

        Parameters
        ----------
        draws
            The sampled factors, each float32 of shape ``(features, num_factors)``, drawn block
            after block.
        means
            What each block was expected to be when it was drawn, given the blocks before it as
            they are in `draws` (Rao-Blackwell: E[V_a V_bᵀ] = E[V_a E[V_b | V_a]ᵀ], with less
            noise).
        """
        self._samples += 1
        if self._samples == 1:
            self.factors = [np.array(mean) for mean in means]
            return
        newest = 1 / self._samples
        blocks = range(len(draws))
        # Of each block b: Z_bᵀ D Z_b, (Z_b before this sample)ᵀ D Z_b, and the sample's V_bᵀ D Z_b.
        squares = [self._product(self.factors[b], b) for b in blocks]
        carried = list(squares)
        sampled = [self._product(means[b], b) for b in blocks]
        for a in blocks:
            others = [b for b in blocks if b != a or self._within[b]]
            if not others:
                continue
            inverse = np.linalg.pinv(
                sum(squares[b] for b in others), rcond=_SMALLEST_RATIO, hermitian=True
            )
            zero = np.zeros_like(inverse)
            updated = (
                self.factors[a] @ _float32((1 - newest) * sum(carried[b] for b in others) @ inverse)
                + means[a]
                @ _float32(newest * sum((sampled[b] for b in others if b <= a), zero) @ inverse)
                + draws[a]
                @ _float32(newest * sum((sampled[b] for b in others if b > a), zero) @ inverse)
            )
            before, self.factors[a] = self.factors[a], updated
            squares[a] = self._product(updated, a)
            carried[a] = self._product(before, a)
            sampled[a] = self._product(draws[a], a)

    def _product(self, left: Floats, block: int) -> Doubles:
        """Return ``leftᵀ D Z`` of a block, float64 of shape ``(num_factors, num_factors)``."""
        right, weights = self.factors[block], self._weights[block]
        product = np.zeros((left.shape[1], right.shape[1]))
        for first in range(0, len(left), _ROWS_PER_SUM):
            rows = slice(first, first + _ROWS_PER_SUM)
            product += (left[rows] * weights[rows, None]).T @ right[rows]
        return product


def _float32(matrix: Doubles) -> Floats:
    return matrix.astype(np.float32)
