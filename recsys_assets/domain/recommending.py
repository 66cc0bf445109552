"""The best unseen videos for each customer, from a factorization machine's parameters.

What belongs here: scoring all videos for many customers and keeping the best. What does not:
training, and how titles and ids are looked up or stored.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from recsys_assets.domain.factorization_machine.model import FactorizationMachine

Indices = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

_SCORES_PER_BLOCK = 1 << 24  # 64 MB of float32 scores at a time


def recommend(
    model: FactorizationMachine,
    customers: int,
    videos: int,
    seen: tuple[Indices, Indices],
    *,
    count: int,
) -> Iterator[tuple[Indices, Indices, Floats]]:
    """Find the `count` best videos for every customer, leaving out the ones in `seen`.

    For one-hot customers and videos the score is ``w0 + w_c + w_v + <v_c, v_v>``, so that all
    videos of many customers are one matrix product.

    Parameters
    ----------
    model
        A model of ``customers + videos`` features, customers first.
    seen
        Customer and video indices, int32, of the pairs that are not to be recommended.
    count
        Recommendations a customer; a customer with fewer unseen videos gets those.

    Yields
    ------
    customer, video, score
        int32, int32 and float32 arrays of equal length, block after block of customers; each
        customer's videos run from the best down, equal scores from the lowest index up.

    Raises
    ------
    ValueError
        If the model has another number of features.
    """
    if model.feature_dim != customers + videos:
        raise ValueError(
            f"expected a model of {customers} customers and {videos} videos = "
            f"{customers + videos} features, got {model.feature_dim}"
        )
    order = np.argsort(seen[0], kind="stable")
    seen_customer, seen_video = seen[0][order], seen[1][order]
    video_weight = model.linear[customers:] + np.float32(model.bias)
    video_factors = model.factors[customers:]
    kept = min(count, videos)
    block = max(1, _SCORES_PER_BLOCK // videos)
    for first in range(0, customers, block):
        last = min(first + block, customers)
        scores = model.factors[first:last] @ video_factors.T
        scores += video_weight
        scores += model.linear[first:last, None]
        low, high = np.searchsorted(seen_customer, [first, last])
        scores[seen_customer[low:high] - first, seen_video[low:high]] = -np.inf

        # The kept-th best score bounds the candidates; ties are settled by the lowest index.
        best = np.argpartition(-scores, kept - 1, axis=1)[:, :kept]
        bound = np.take_along_axis(scores, best, axis=1).min(axis=1)
        row, video = np.nonzero(scores >= bound[:, None])
        score = scores[row, video]
        ranked = np.lexsort((video, -score, row))
        row, video, score = row[ranked], video[ranked], score[ranked]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        chosen = (rank < kept) & np.isfinite(score)
        yield (
            (row[chosen] + first).astype(np.int32),
            video[chosen].astype(np.int32),
            score[chosen],
        )
