"""The factorization machine of this project, with the solver that the settings name."""

from features import one_hot
from task import Predict, Ratings, Task, run

from recsys_assets.domain.factorization_machine.estimator import FactorizationMachineEstimator
from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters


def fit(train: Ratings, task: Task) -> Predict:
    """Fit with the settings given; all others are the defaults."""
    hyperparameters = ExtendedHyperparameters(
        feature_dim=task.customers + task.videos,
        num_factors=task.rank,
        predictor_type="regressor",
        epochs=task.iterations,
        **task.settings,
    )
    estimator = FactorizationMachineEstimator(
        hyperparameters, random_state=task.seed, threads=task.threads
    )
    estimator.fit(one_hot(train, task), train.stars)
    return lambda ratings: estimator.predict(one_hot(ratings, task))


if __name__ == "__main__":
    run(fit)
