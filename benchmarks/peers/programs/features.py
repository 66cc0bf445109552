"""Ratings as rows of a sparse matrix, for the programs whose library takes them so.

What belongs here: one-hot features. What does not: anything that is not numpy or scipy.
"""

import numpy as np
from scipy.sparse import csr_matrix
from task import Ratings, Task


def one_hot(ratings: Ratings, task: Task) -> csr_matrix:
    """Return CSR float32 with a column for each customer, then one for each video."""
    customers, videos, _ = ratings
    columns = np.stack([customers, task.customers + videos], axis=1).ravel()
    starts = np.arange(0, len(columns) + 1, 2)
    values = np.ones(len(columns), dtype=np.float32)
    return csr_matrix(
        (values, columns, starts), shape=(len(customers), task.customers + task.videos)
    )
