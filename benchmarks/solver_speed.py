"""How fast are training and prediction? Prints records a second, with one thread and with two.

    python benchmarks/solver_speed.py             # about a minute
    python benchmarks/solver_speed.py --repeat 5

The published job is that of the built-in's notebook on Amazon's reviews: 617,000 training records
of 178,729 features, 64 factors, 10 epochs, mini-batches of 200. Data are generated: a long tail of
customers and videos, in shuffled order. Each line is the best of some repetitions, after one that
compiles or loads what is compiled: wall time, and processor time, which tells more on a machine
that others use as well.
"""

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_matrix

from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.factorization_machine.model import FactorizationMachine
from recsys_assets.domain.factorization_machine.solvers import adam, sgd
from recsys_assets.domain.factorization_machine.solvers.common import Records

CUSTOMERS, VIDEOS = 150_000, 28_729
RATINGS = 617_000
SCORED = 4_000_000


def two_hot(customers: np.ndarray, videos: np.ndarray) -> csr_matrix:
    """Return a record for each pair of a customer and a video."""
    rows = len(customers)
    columns = np.stack([customers, CUSTOMERS + videos], axis=1).astype(np.int32)
    return csr_matrix(
        (np.ones(2 * rows, np.float32), columns.reshape(-1), np.arange(0, 2 * rows + 1, 2)),
        shape=(rows, CUSTOMERS + VIDEOS),
    )


def ratings() -> Records:
    """Return the published job's records in shuffled order; each feature occurs."""
    generator = np.random.default_rng(0)
    customers = (CUSTOMERS * generator.random(RATINGS) ** 1.5).astype(np.int64)
    videos = (VIDEOS * generator.random(RATINGS) ** 3).astype(np.int64)
    customers[:CUSTOMERS], videos[:VIDEOS] = np.arange(CUSTOMERS), np.arange(VIDEOS)
    order = generator.permutation(RATINGS)
    X = two_hot(customers[order], generator.permutation(VIDEOS)[videos[order]])
    return X, generator.integers(1, 6, RATINGS).astype(np.float32)


def measure(name: str, records: int, repeat: int, run: Callable[[int], object]) -> None:
    """Print a line for one thread and one for two; `run` is given their number."""
    for threads in (1, 2):
        run(threads)
        wall, processor = [], []
        for _ in range(repeat):
            wall_before, processor_before = time.perf_counter(), time.process_time()
            run(threads)
            wall.append(time.perf_counter() - wall_before)
            processor.append(time.process_time() - processor_before)
        print(
            f"{name:42} {threads:7} {min(wall):8.2f} {min(processor):8.2f} "
            f"{records / min(wall) / 1e6:10.2f} {records / min(processor) / 1e6:13.2f}",
            flush=True,
        )


def predict(model: FactorizationMachine, X: csr_matrix, threads: int) -> np.ndarray:
    """Predict with that many processors, which is how many threads prediction uses."""
    all_processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_processors)[:threads])
    try:
        return model.predict(X)
    finally:
        os.sched_setaffinity(0, all_processors)


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} processors, load average {load:.1f} before")
    print(f"{'':42} threads   wall s    cpu s  M records/s   a cpu second")

    X, y = ratings()
    job = ExtendedHyperparameters(
        feature_dim=X.shape[1], num_factors=64, predictor_type="regressor", epochs=10,
        mini_batch_size=200,
    )  # fmt: skip
    measure(
        "published job (adam)", job.epochs * RATINGS, repeat,
        lambda threads: adam.train(X, y, job, threads=threads),
    )  # fmt: skip
    by_sgd = job.model_copy(
        update={"solver": "sgd", "num_factors": 32, "bias_lr": 0.01, "linear_lr": 0.01}
        | {"factors_lr": 0.01, "factors_init_sigma": 0.01}
    )
    measure(
        "sgd, 32 factors", by_sgd.epochs * RATINGS, repeat,
        lambda threads: sgd.train(X, y, by_sgd, threads=threads),
    )  # fmt: skip

    generator = np.random.default_rng(1)
    shape = CUSTOMERS + VIDEOS, 64
    linear, factors = (generator.normal(size=size).astype(np.float32) for size in (shape[0], shape))
    model = FactorizationMachine("regressor", 0.0, linear, factors)
    customers = generator.integers(0, CUSTOMERS, SCORED)
    videos = generator.integers(0, VIDEOS, SCORED)
    for name, order in (("random", customers), ("sorted by customer", np.sort(customers))):
        records = two_hot(order, videos)
        measure(
            f"prediction, 64 factors, {name}", SCORED, repeat,
            lambda threads, X=records: predict(model, X, threads),
        )  # fmt: skip


if __name__ == "__main__":
    main()
