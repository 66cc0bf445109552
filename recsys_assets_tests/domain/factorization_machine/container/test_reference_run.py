"""AWS's own run on MovieLens 100K, repeated by the training program with what is documented.

What belongs here: the figures that the built-in's container logged, and ours beside them. What does
not: the update rule on data that everybody has (``solvers.test_adam``).

Source: the log of a training job on ml.c4.xlarge of December 2021, in a public notebook that
recommends by SageMaker's Factorization Machines: one-hot customers and films of ua.base and
ua.test, in file order, with the label "rated 4 or 5".
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys_assets_tests.domain.factorization_machine.container.conftest import Container

HYPERPARAMETERS = {
    "feature_dim": "2623",
    "num_factors": "64",
    "predictor_type": "binary_classifier",
    "epochs": "30",
    "mini_batch_size": "200",
}
TRAIN_CROSS_ENTROPY = {
    0: 0.6858,
    1: 0.6732,
    2: 0.6633,
    4: 0.6491,
    9: 0.6274,
    14: 0.6129,
    19: 0.6013,
    24: 0.5914,
    29: 0.5828,
}
TEST_ACCURACY, TEST_CROSS_ENTROPY, TEST_F1 = 0.6935, 0.6040, 0.7624


def records(rows: np.ndarray, customers: np.ndarray, films: np.ndarray) -> csr_matrix:
    customer = np.searchsorted(customers, rows[:, 0])
    film = len(customers) + np.searchsorted(films, rows[:, 1])
    columns = np.stack([customer, film], axis=1).ravel()
    ones = np.ones(columns.size, dtype=np.float32)
    shape = (len(rows), len(customers) + len(films))
    return csr_matrix((ones, columns, np.arange(0, columns.size + 1, 2)), shape=shape)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_every_seed_comes_to_what_awss_container_logged(
    container: Container, real_data: Callable[[str], Path], seed: int
) -> None:
    folder = real_data("ml-100k")
    base, test = (np.loadtxt(folder / name, dtype=np.int64) for name in ("ua.base", "ua.test"))
    customers, films = np.unique(base[:, 0]), np.unique(base[:, 1])
    test = test[np.isin(test[:, 1], films)]  # the notebook dropped two films that nobody had rated
    assert (len(base), len(test)) == (90_570, 9_428)
    for channel, rows in (("train", base), ("test", test)):
        X = records(rows, customers, films)
        container.add_file(channel, "data", X, (rows[:, 2] >= 4).astype(np.float32))

    code, output = container.train(HYPERPARAMETERS, FACTORIZATION_MACHINE_SEED=str(seed))
    assert code == 0, output

    def logged(metric: str) -> float:
        (value,) = re.findall(rf"#quality_metric: host=algo-1, {metric}=(\S+)", output)
        return float(value)

    for epoch, published in TRAIN_CROSS_ENTROPY.items():
        ours = logged(f"epoch={epoch}, train binary_classification_cross_entropy <loss>")
        assert ours == pytest.approx(published, rel=0.0015), epoch
    loss = logged("test binary_classification_cross_entropy <loss>")
    assert loss == pytest.approx(TEST_CROSS_ENTROPY, rel=0.003)
    accuracy = logged("test binary_classification_accuracy <score>")
    assert accuracy == pytest.approx(TEST_ACCURACY, abs=0.006)
    assert logged(r"test binary_f_1\.000 <score>") == pytest.approx(TEST_F1, abs=0.006)
