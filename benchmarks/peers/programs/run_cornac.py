"""cornac's matrix factorisation with biases, by stochastic gradient descent."""

import numpy as np
from cornac.data import Dataset
from cornac.models import MF
from task import Predict, Ratings, Task, run


def fit(train: Ratings, task: Task) -> Predict:
    """Fit to all customers and videos, so that one without training ratings is predicted too."""
    model = MF(
        k=task.rank,
        max_iter=task.iterations,
        num_threads=task.threads,
        seed=task.seed if task.threads == 1 else None,  # a seed means one thread
        **task.settings,
    )
    customers = {customer: customer for customer in range(task.customers)}
    videos = {video: video for video in range(task.videos)}
    model.fit(Dataset(task.customers, task.videos, customers, videos, tuple(train)))

    def predict(ratings: Ratings) -> np.ndarray:
        customers, videos, _ = ratings
        interactions = np.einsum("rf,rf->r", model.u_factors[customers], model.i_factors[videos])
        return model.global_mean + model.u_biases[customers] + model.i_biases[videos] + interactions

    return predict


if __name__ == "__main__":
    run(fit)
