"""myFM's Bayesian factorization machine: Gibbs sampling, one coordinate at a time."""

from features import one_hot
from myfm import MyFMRegressor
from task import Predict, Ratings, Task, run


def fit(train: Ratings, task: Task) -> Predict:
    """Fit with hyperpriors of their own for customers and videos; all other settings its own."""
    model = MyFMRegressor(rank=task.rank, random_seed=task.seed)
    groups = [task.customers, task.videos]
    model.fit(one_hot(train, task), train.stars, n_iter=task.iterations, group_shapes=groups)
    return lambda ratings: model.predict(one_hot(ratings, task))


if __name__ == "__main__":
    run(fit)
