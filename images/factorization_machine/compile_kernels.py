"""Run everything that compiles once, so that numba's cache has it before a job starts.

What belongs here: records of the kinds that jobs have. What does not: what is compiled, which the
modules of the package know.
"""

from typing import get_args

import numpy as np
from scipy.sparse import csr_matrix, random_array, vstack

from recsys_assets.domain.factorization_machine.estimator import FactorizationMachineEstimator
from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters, Solver
from recsys_assets.domain.recordio import decode_recordio, encode_recordio

FEATURES, RECORDS = 100, 1000


def main() -> None:
    """Fit records of two ones each and records of anything; read and score very many of them."""
    generator = np.random.default_rng(0)
    pairs = generator.integers([0, FEATURES // 2], [FEATURES // 2, FEATURES], (RECORDS, 2))
    ones = np.ones(pairs.size, dtype=np.float32)
    ends = np.arange(0, pairs.size + 1, 2)
    two_hot = csr_matrix((ones, pairs.ravel(), ends), shape=(RECORDS, FEATURES))
    anything = csr_matrix(random_array((RECORDS, FEATURES), rng=generator, dtype=np.float32))
    y = generator.integers(0, 2, RECORDS).astype(np.float32)
    for solver in get_args(Solver):
        hyperparameters = ExtendedHyperparameters(
            feature_dim=FEATURES,
            num_factors=64,
            predictor_type="regressor",
            solver=solver,
            epochs=2,
            burn_in=1,
        )
        for X in (two_hot, anything):
            read, labels = decode_recordio(encode_recordio(X, y))  # of the types that a job has
            estimator = FactorizationMachineEstimator(hyperparameters).fit(read, labels)
    many = vstack([two_hot] * 2500, format="csr")  # fewer need no kernel
    decode_recordio(encode_recordio(many))
    estimator.predict(many)


if __name__ == "__main__":
    main()
