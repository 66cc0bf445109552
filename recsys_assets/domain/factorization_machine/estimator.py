"""A factorization machine in the manner of scikit-learn.

What belongs here: choosing the solver, and fitting and predicting with what it found. What does
not: how a solver works (``solvers``), and files and logs (``container``).
"""

from collections.abc import Callable
from typing import Self

from scipy.sparse import csr_matrix

from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.factorization_machine.model import FactorizationMachine, Floats
from recsys_assets.domain.factorization_machine.solvers import adam, bayesian, sgd
from recsys_assets.domain.factorization_machine.solvers.common import Progress, Records
from recsys_assets.domain.factorization_machine.solvers.stream import Chunks

_SOLVERS = {"adam": adam.train, "sgd": sgd.train, "mcmc": bayesian.train}


class FactorizationMachineEstimator:
    """Fits one factorization machine.

    Parameters
    ----------
    hyperparameters
        What to fit, and how.
    random_state
        Seed of everything random: the same records, hyperparameters and seed give the same model.
    threads
        How many to use; by default as many as this process may use processors. The model does not
        depend on it.

    Attributes
    ----------
    model_
        The fitted :class:`FactorizationMachine`, after :meth:`fit` or :meth:`fit_stream`.

    Examples
    --------
    Two customers (the first two columns) rate two videos (the other two), each the other way
    round: what weights alone cannot tell, and factors can.

    >>> import numpy as np
    >>> X = csr_matrix(np.array(
    ...     [[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]], dtype=np.float32
    ... ))
    >>> y = np.array([5, 1, 1, 5], dtype=np.float32)
    >>> hyperparameters = ExtendedHyperparameters(
    ...     feature_dim=4, num_factors=2, predictor_type="regressor", epochs=500,
    ...     mini_batch_size=4, factors_lr=0.02,
    ... )
    >>> estimator = FactorizationMachineEstimator(hyperparameters, random_state=1).fit(X, y)
    >>> [round(float(score)) for score in estimator.predict(X)]
    [5, 1, 1, 5]
    """

    model_: FactorizationMachine

    def __init__(
        self,
        hyperparameters: ExtendedHyperparameters,
        *,
        random_state: int = 0,
        threads: int | None = None,
    ) -> None:
        self.hyperparameters = hyperparameters
        self.random_state = random_state
        self.threads = threads

    def fit(
        self,
        X: csr_matrix,
        y: Floats,
        *,
        validation: Records | None = None,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> Self:
        """Fit the model.

        Parameters
        ----------
        X
            CSR of shape ``(records, feature_dim)`` with any number of non-zeros a row. Values of a
            feature that a row stores twice add up.
        y
            float32 of shape ``(records,)``; 0 or 1 for a binary classifier.
        validation
            Features and labels like these that are not trained on. Each epoch is measured on them;
            `early_stopping_patience` needs them.
        report
            Called with what each epoch has come to, as it comes.

        Raises
        ------
        DataError
            If records or labels do not fit the hyperparameters, or validation records are needed
            and not given.
        DivergenceError
            If training runs away. There is never a model with parameters that are not finite.
        """
        self.model_ = _SOLVERS[self.hyperparameters.solver](
            X,
            y,
            self.hyperparameters,
            validation=validation,
            report=report,
            random_state=self.random_state,
            threads=self.threads,
        )
        return self

    def fit_stream(
        self,
        chunks: Chunks,
        *,
        validation: Records | None = None,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> Self:
        """Fit the model to records that need not fit into memory.

        The model is the one that :meth:`fit` makes of all records at once, however they are cut.

        Parameters
        ----------
        chunks
            Called once for each epoch; returns features and labels, as of :meth:`fit`, chunk by
            chunk.
        validation, report
            As of :meth:`fit`.

        Raises
        ------
        ValueError
            If the solver is another one than "adam": the others need all records at hand.
        DataError, DivergenceError
            As :meth:`fit`.
        """
        if self.hyperparameters.solver != "adam":
            raise ValueError(
                "expected solver 'adam' for a stream of records, got "
                f"{self.hyperparameters.solver!r}"
            )
        self.model_ = adam.train_stream(
            chunks,
            self.hyperparameters,
            validation=validation,
            report=report,
            random_state=self.random_state,
            threads=self.threads,
        )
        return self

    def predict(self, X: csr_matrix) -> Floats:
        """Score records as :meth:`FactorizationMachine.predict` does."""
        return self.model_.predict(X)
