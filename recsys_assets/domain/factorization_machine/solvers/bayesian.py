"""Training by sampling: a Bayesian factorization machine by block Gibbs sampling.

What belongs here: the priors, the conditional distributions and the loop over sweeps. What does
not: cutting records into blocks (``blocks``) and making one model of many samples (``averaging``).

Labels are first shifted and scaled to mean 0 and standard deviation 1. For those, with θ_j =
(v_j, w1_j) the factors and linear weight of feature j, which is of block b, and r_j how reliable
the labels of j's records are:

- label ~ N(score, 1 / (p Π_j r_j)), the product over those features of the record whose block is
  exclusive: one of which no record has two features, as with one-hot columns;
- θ_jf ~ N(μ_bf, 1 / λ_bf) and r_j ~ Gamma(100, 100);
- μ_bf ~ N(0, 1 / λ_bf), p ~ Gamma(½, ½), w0 is flat;
- λ_bf ~ Gamma(c / 2, c s² / 2), which counts as c features of variance s². For linear weights s
  is 1; for factors s is such that an interaction v_i·v_j has a standard deviation of 0.3. c is 1,
  but for the factors of the first two blocks (who rated what) greater by half the number of the
  block's features: else their factors die out where records are few. The factors of further
  blocks may well die out, and begin a tenth as large.

A sweep draws each of these in turn from its distribution given all others. Given the other blocks,
the features of an exclusive block are independent of each other, and θ_j is drawn as a whole. With
q the sum of a record's factors in the other blocks and a last component 1, y its label less what
it scores without j, x the value of j there, and Σ over the records of j, each weighted by the other
blocks' r, the precision is P = diag(λ) + p r_j Σ x² q qᵀ and the mean P⁻¹ (λ μ + p r_j Σ x q y).
Features of other blocks are drawn one component at a time.

Where a feature has fewer records than half its parameters, as most have if ratings are sparse, the
same distribution is drawn from by way of a matrix K with a row for each record instead of P. With
w a record's weight, √(p r_j w) x qᵀ its row of Φ and √(p r_j w) y its element of a, D = diag(1/λ),
K = Φ D Φᵀ + I, u ~ N(μ, D) and δ ~ N(0, I), the draw is u + D Φᵀ K⁻¹ (a - Φ u - δ) and the mean
μ + D Φᵀ K⁻¹ (a - Φ μ).

Of what is drawn of θ, each normal by itself, a draw keeps -κ of the deviation that the one before
had from the new mean m: θ ← m - κ (θ - m) + √(1 - κ²) · (draw - m), which leaves the distribution
as it is (overrelaxation). Samples that follow each other then lie on opposite sides of the mean, so
that fewer of them make as good an average.

Sources: Salakhutdinov and Mnih 2008, "Bayesian probabilistic matrix factorization using MCMC";
Freudenthaler, Schmidt-Thieme and Rendle 2011, "Bayesian factorization machines"; Rendle 2013,
"Scaling factorization machines to relational data"; for r Lakshminarayanan, Bouchard and
Archambeau 2011, "Robust Bayesian matrix factorisation"; for K Bhattacharya, Chakraborty and Mallick
2016, "Fast sampling with Gaussian scale mixture priors in high-dimensional regression"; for κ Adler
1981, "Over-relaxation method for the Monte Carlo evaluation of the partition function for
multiquadratic actions".
"""

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.factorization_machine.metrics import Metric
from recsys_assets.domain.factorization_machine.model import FactorizationMachine, as_features
from recsys_assets.domain.factorization_machine.solvers.averaging import InteractionAverage
from recsys_assets.domain.factorization_machine.solvers.blocks import Block, as_blocks
from recsys_assets.domain.factorization_machine.solvers.common import (
    DivergenceError,
    Floats,
    Progress,
    Records,
    check_records,
)
from recsys_assets.domain.factorization_machine.solvers.compiling import (
    compiled,
    compiled_into_callers,
)
from recsys_assets.domain.factorization_machine.solvers.stopping import (
    EarlyStopping,
    check_validation,
    validate,
)
from recsys_assets.domain.processors import processors

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int32]

# The priors; all three were chosen on validation records of films' and of generated ratings.
_INTERACTION_SIGMA = 0.3
_PRIOR_FEATURES = 0.5  # what the prior of factors' variances counts as, per feature of a block
_RELIABILITY_SHAPE = 100.0
_MAIN_BLOCKS = 2  # with this prior
_INITIAL_SCALE_OF_OTHERS = np.float32(0.1)

# κ, chosen there too: 20 sweeps with it are worth 60 without; 0.7 to 0.9 make little difference.
_OVERRELAXATION = 0.85

_OPERATIONS_PER_PART = 1 << 24  # work is cut into parts of about this size, whoever does them
_MOST_PARTS = 64


def train(
    X: csr_matrix,
    y: Floats,
    hyperparameters: ExtendedHyperparameters,
    *,
    validation: Records | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    random_state: int = 0,
    threads: int | None = None,
) -> FactorizationMachine:
    """Fit the posterior mean of a Bayesian factorization machine.

    The model is the mean of all samples after burn-in: of the bias, of the linear weights and, as
    near as `num_factors` allow, of the interactions. A feature that no record has gets the mean of
    its block.

    Parameters
    ----------
    X
        CSR of shape ``(records, feature_dim)`` with any number of non-zeros a row. Records' order
        does not matter but for rounding.
    y
        float32 of shape ``(records,)``.
    hyperparameters
        Those of solver "mcmc"; their `feature_dim` must be the width of `X`.
    validation
        Records that are not trained on. After burn-in each sweep reports how well the mean so far
        predicts them, which is what `early_stopping_patience` looks at.
    report
        Called after each sweep, with the metrics of its own sample on the training records.
    random_state
        Seed, not negative. Every part of every sweep has a generator of its own, seeded with this
        and its place.
    threads
        How many to use; all processors of this process by default. The model does not depend on
        it.

    Raises
    ------
    DataError
        As :func:`check_records`, :func:`check_validation` and :func:`as_blocks` say.
    DivergenceError
        If a sample's scores are not finite, as features of enormous values make them.
    """
    check_records(X, y, hyperparameters)
    check_validation(validation, hyperparameters)
    X.check_format(full_check=True)  # the compiled loops trust every index
    X = as_features(X, hyperparameters.feature_dim)
    blocks = as_blocks(X, hyperparameters.feature_blocks)
    offset = float(np.mean(y, dtype=np.float64))
    scale = float(np.std(y, dtype=np.float64)) or 1.0
    average = _Average(X, blocks, offset, scale)
    stopping = EarlyStopping(hyperparameters.early_stopping_patience)
    with ThreadPoolExecutor(threads or processors()) as executor:
        scaled = ((y - offset) / scale).astype(np.float32)
        chain = _Chain(blocks, scaled, hyperparameters.num_factors, random_state, executor)
        for sweep in range(hyperparameters.epochs):
            rmse = scale * chain.sweep(sweep)
            if not np.isfinite(rmse):
                raise DivergenceError(
                    f"training diverged in sweep {sweep}: scores are no longer finite; are there "
                    "features of enormous values?"
                )
            of_validation: tuple[Metric, ...] = ()
            if sweep >= hyperparameters.burn_in:
                average.add(chain)
                if validation is not None:
                    model = average.model()
                    of_validation = validate(model, validation)
            report(Progress(sweep, None, (Metric("rmse", "loss", rmse),), of_validation))
            if of_validation and stopping.update(model, of_validation):
                break
    return average.model() if stopping.best is None else stopping.best


class _Average:
    """The mean of a chain's samples as one model, back on the scale of the labels."""

    def __init__(self, X: csr_matrix, blocks: Sequence[Block], offset: float, scale: float) -> None:
        squares = np.bincount(X.indices, weights=X.data.astype(np.float64) ** 2)
        weights = np.zeros(X.shape[1], np.float32)
        weights[: len(squares)] = squares
        self._columns = [block.columns for block in blocks]
        self._interactions = InteractionAverage(
            [weights[columns] for columns in self._columns],
            [not block.is_exclusive for block in blocks],
        )
        self._offset, self._scale = offset, scale
        self._samples, self._bias, self._linear = 0, 0.0, np.zeros(X.shape[1])

    def add(self, chain: "_Chain") -> None:
        self._samples += 1
        self._bias += chain.bias
        self._linear += chain.expected[:, -1]
        self._interactions.add(
            [chain.theta[columns, :-1] for columns in self._columns],
            [chain.expected[columns, :-1] for columns in self._columns],
        )

    def model(self) -> FactorizationMachine:
        return FactorizationMachine(
            predictor_type="regressor",
            bias=self._offset + self._scale * self._bias / self._samples,
            linear=(self._linear * (self._scale / self._samples)).astype(np.float32),
            factors=np.concatenate(self._interactions.factors) * np.float32(self._scale**0.5),
        )


# ------------------------------------------------------------------------------------ the chain


class _Arrays(NamedTuple):
    """A block as the compiled loops see it.

    `indptr`, `cases` and `values` are CSC arrays: for each feature the cases that hold it, and its
    values there. Records are sorted by case: those of case c are from ``start[c]`` to
    ``start[c + 1]``, with their labels in `y` and in a row of `others` their cases in the other
    blocks, as rows of the table of all cases; this block's cases begin there at `first_case`.
    Records of one case are sorted too, so that each has the same δ in whatever order they came.
    """

    indptr: Integers
    cases: Indices
    values: Floats
    start: Integers
    others: Indices
    y: Floats
    first_case: int


class _Chain:
    """One Markov chain: the current sample, and how to come from it to the next.

    Attributes
    ----------
    bias
        w0.
    theta
        float32 of shape ``(feature_dim, num_factors + 1)``: factors, then linear weights.
    expected
        Of the shape of `theta`: what each row, or in blocks that are not exclusive each component,
        was expected to be when it was drawn.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        y: Floats,
        num_factors: int,
        random_state: int,
        executor: Executor,
    ) -> None:
        self._seed, self._executor = random_state, executor
        self._factors_sigma = (_INTERACTION_SIGMA**2 / num_factors) ** 0.25
        features = sum(block.cases.shape[1] for block in blocks)
        self.bias = 0.0
        self.theta = self._generator().standard_normal((features, num_factors + 1), np.float32)
        self.theta *= np.float32(self._factors_sigma)
        for block in blocks[_MAIN_BLOCKS:]:
            self.theta[block.columns] *= _INITIAL_SCALE_OF_OTHERS
        self.expected = np.zeros_like(self.theta)
        self._precision = 1.0
        first_case = np.cumsum([0, *(block.cases.shape[0] for block in blocks)])
        # Of each case the sum of its features' factors, then what it scores by itself; and its r.
        self._table = np.empty((first_case[-1], num_factors + 1), np.float32)
        self._reliability = np.ones(first_case[-1], np.float32)
        self._errors, self._weights = np.empty_like(y), np.empty_like(y)
        arrays = [_arrays_of(blocks, index, y, first_case) for index in range(len(blocks))]
        self._blocks = [
            _SampledBlock(
                block,
                arrays[index],
                _PRIOR_FEATURES if index < _MAIN_BLOCKS else 0.0,
                self.theta,
                self.expected,
                self._table,
            )
            for index, block in enumerate(blocks)
        ]

    def sweep(self, number: int) -> float:
        """Draw the next sample; return its RMSE on the training records."""
        for index, block in enumerate(self._blocks):
            generator = self._generator(number, index)
            mu, lam = block.draw_prior(generator, self._factors_sigma)
            block.forget_unseen(mu)
            if block.is_exclusive:
                self._draw_exclusive(block, mu, lam, (number, index))
            else:
                self._draw_shared(block, mu, lam, generator)
        return self._draw_bias_and_precision(self._generator(number))

    def _generator(self, *place: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=place))

    def _draw_exclusive(
        self, block: "_SampledBlock", mu: Doubles, lam: Doubles, place: tuple[int, ...]
    ) -> None:
        def draw(part: int) -> None:
            first, last = block.cuts[part : part + 2]
            generator = self._generator(*place, part)
            records, few = block.records[first:last], _few_records(len(mu))
            normals = len(mu) * len(records) + records[records <= few].sum()
            _draw_exclusive(
                block.arrays,
                first,
                last,
                self.bias,
                self._precision,
                mu,
                lam,
                records,
                few,
                generator.standard_normal(normals, np.float32),
                generator.standard_gamma(_RELIABILITY_SHAPE + records / 2),
                self._table,
                self._reliability,
                block.theta,
                block.expected,
            )

        self._in_parts(draw, block.cuts)

    def _draw_shared(
        self, block: "_SampledBlock", mu: Doubles, lam: Doubles, generator: np.random.Generator
    ) -> None:
        self._measure(block)
        _draw_shared(
            block.arrays,
            self._precision,
            mu,
            lam,
            generator.standard_normal((len(mu), len(block.theta)), np.float32),
            self._errors,
            self._weights,
            self._table,
            block.theta,
            block.expected,
        )
        block.sum_cases()

    def _draw_bias_and_precision(self, generator: np.random.Generator) -> float:
        total, slope, squares, plain_slope, plain_squares = self._measure(self._blocks[0])
        step = generator.normal(slope / total, 1 / np.sqrt(self._precision * total))
        self.bias += step
        squares += step * (step * total - 2 * slope)
        count = len(self._errors)
        self._precision = generator.gamma((1 + count) / 2, 2 / (1 + squares))
        mean_square = plain_squares / count + step * (step - 2 * plain_slope / count)
        return float(np.sqrt(max(mean_square, 0.0)))  # rounding can take it below

    def _measure(self, block: "_SampledBlock") -> Doubles:
        """Put each record's error and its weight Π r in place, in the order of `block`.

        Return the sums that the compiled `_measure` does.
        """

        def measure(part: int) -> tuple[float, ...]:
            first, last = block.case_cuts[part : part + 2]
            sums: tuple[float, ...] = _measure(
                block.arrays,
                first,
                last,
                self.bias,
                self._table,
                self._reliability,
                self._errors,
                self._weights,
            )
            return sums

        sums: Doubles = np.sum(self._in_parts(measure, block.case_cuts), axis=0)
        return sums

    def _in_parts(self, do: Callable[[int], Any], cuts: Sequence[int]) -> list[Any]:
        return list(self._executor.map(do, range(len(cuts) - 1)))


class _SampledBlock:
    """A block with its own share of a chain's arrays, and the prior of its features.

    `records` is the number of records of each feature; `cuts` and `case_cuts` are where its
    features and its cases are cut into parts.
    """

    def __init__(
        self,
        block: Block,
        arrays: _Arrays,
        prior_features: float,
        theta: Floats,
        expected: Floats,
        table: Floats,
    ) -> None:
        columns = theta.shape[1]
        self.arrays = arrays
        self.is_exclusive = block.is_exclusive
        self.theta, self.expected = theta[block.columns], expected[block.columns]
        self._prior_features = prior_features
        self._cases = block.cases
        self._table = table[arrays.first_case : arrays.first_case + block.cases.shape[0]]
        self._mu = np.zeros(columns)
        self.sum_cases()
        records_before = np.concatenate([[0], np.cumsum(np.diff(arrays.start)[arrays.cases])])
        self.records = np.diff(records_before[arrays.indptr])
        self._seen = self.records > 0
        features = np.arange(len(arrays.indptr))
        self.cuts = _cuts(records_before[arrays.indptr] * columns**2 + features * columns**3)
        self.case_cuts = _cuts(arrays.start * columns * 10)

    def draw_prior(
        self, generator: np.random.Generator, factors_sigma: float
    ) -> tuple[Doubles, Doubles]:
        """Return new means and precisions of the block's parameters, one for each column."""
        seen = int(self._seen.sum())
        sums, squares = _moments(self.theta, self._seen, self._mu)
        counts_as = np.full(len(sums), 1 + self._prior_features * seen)
        variance = np.full(len(sums), factors_sigma**2)
        counts_as[-1] = variance[-1] = 1.0
        lam = generator.gamma(
            (counts_as + seen + 1) / 2, 2 / (counts_as * variance + squares + self._mu**2)
        )
        self._mu = generator.normal(sums / (seen + 1), 1 / np.sqrt(lam * (seen + 1)))
        return self._mu, lam

    def forget_unseen(self, mu: Doubles) -> None:
        """Let features that no record has be what they are expected to be: nothing is learned."""
        self.theta[~self._seen] = self.expected[~self._seen] = mu

    def sum_cases(self) -> None:
        """Bring the table of cases up to date with the parameters."""
        cases = self._cases
        _sum_cases(cases.indptr, cases.indices, cases.data, self.theta, self._table)


def _arrays_of(blocks: Sequence[Block], index: int, y: Floats, first_case: Integers) -> _Arrays:
    block = blocks[index]
    counts = np.bincount(block.case, minlength=block.cases.shape[0])
    others = np.empty((len(y), len(blocks) - 1), np.int32)
    for column, other in enumerate(i for i in range(len(blocks)) if i != index):
        others[:, column] = blocks[other].case + first_case[other]
    order = np.lexsort((y, *others.T, block.case))
    csc = block.cases.tocsc()
    return _Arrays(
        indptr=csc.indptr.astype(np.int64),
        cases=csc.indices.astype(np.int32),
        values=csc.data,
        start=np.concatenate([[0], np.cumsum(counts)]),
        others=others[order],
        y=y[order],
        first_case=int(first_case[index]),
    )


def _few_records(columns: int) -> int:
    """Return up to how many records a feature is drawn by way of K.

    Measured for 9 to 33 parameters this costs less up to half as many records, and more from three
    quarters on. The records must also fit in a panel without filling it.
    """
    return min(columns // 2, _PANEL - 1)


def _cuts(cost_before: Integers) -> list[int]:
    """Cut items into parts of about equal cost, given the cost of all items before each."""
    items, cost = len(cost_before) - 1, int(cost_before[-1])
    parts = min(_MOST_PARTS, cost // _OPERATIONS_PER_PART + 1)
    inner: Iterable[int] = np.searchsorted(cost_before, np.linspace(0, cost, parts + 1)[1:-1])
    return [0, *sorted({int(cut) for cut in inner} - {0, items}), items]


# -------------------------------------------------------------------------------- compiled loops

# float32 constants: with Python's floats the arithmetic would silently be double.
_ONE, _HALF, _ZERO = np.float32(1), np.float32(0.5), np.float32(0)
_PANEL = 128  # records that are added up at once: few enough for the nearest cache
_LANES = 8  # records in a vector; a panel is filled up to a multiple of this
_TILE = 4  # rows and columns of a sum of products that are added to at once, in registers
_NEW = math.sqrt(1 - _OVERRELAXATION**2)  # the share of a new draw's deviation in a parameter's


@compiled
def _moments(
    theta: Floats, seen: npt.NDArray[np.bool_], centre: Doubles
) -> tuple[Doubles, Doubles]:
    """Return Σ θ_j and Σ (θ_j - centre)² over the features seen."""
    columns = theta.shape[1]
    sums, squares = np.zeros(columns), np.zeros(columns)
    for feature in range(len(theta)):
        if seen[feature]:
            for f in range(columns):
                sums[f] += theta[feature, f]
                squares[f] += (theta[feature, f] - centre[f]) ** 2
    return sums, squares


@compiled
def _sum_cases(
    indptr: Indices, indices: Indices, data: Floats, theta: Floats, table: Floats
) -> None:
    """Put in each case's row of `table` its sum of factors, then what it scores by itself."""
    k = theta.shape[1] - 1
    for case in range(len(indptr) - 1):
        sums = table[case]
        sums[:] = _ZERO
        squares, total = _ZERO, _ZERO
        for entry in range(indptr[case], indptr[case + 1]):
            weights, x = theta[indices[entry]], data[entry]
            for f in range(k + 1):
                sums[f] += x * weights[f]
            for f in range(k):
                squares += (x * weights[f]) ** 2
        for f in range(k):
            total += sums[f] * sums[f]
        sums[k] += _HALF * (total - squares)


# Rows go to these two as a table and an index: making a view of a row is not free in inner loops.


@compiled_into_callers
def _gather(table: Floats, others: Indices, row: int, sums: Floats, at: int) -> np.float32:
    """Put the sum of factors of a row's cases in ``sums[at]``; return what they score together."""
    k = table.shape[1] - 1
    for f in range(k):
        sums[at, f] = _ZERO
    scored, squares, total = _ZERO, _ZERO, _ZERO
    for block in range(others.shape[1]):
        case = others[row, block]
        scored += table[case, k]
        for f in range(k):
            factor = table[case, f]
            sums[at, f] += factor
            squares += factor * factor
    for f in range(k):
        total += sums[at, f] * sums[at, f]
    return scored + _HALF * (total - squares)


@compiled_into_callers
def _product(reliability: Floats, others: Indices, row: int) -> np.float32:
    weight = _ONE
    for block in range(others.shape[1]):
        weight *= reliability[others[row, block]]
    return weight


@compiled
def _measure(
    arrays: _Arrays,
    first: int,
    last: int,
    bias: float,
    table: Floats,
    reliability: Floats,
    errors: Floats,
    weights: Floats,
) -> tuple[float, float, float, float, float]:
    """Put the error and the weight of each record of the cases `first` to `last` in place.

    Return the sums of weights, of weighted errors and their squares, of errors and squares.
    """
    _, _, _, start, others, y, first_case = arrays
    k = table.shape[1] - 1
    is_pair = others.shape[1] == 1
    gathered = np.empty((1, k), np.float32)
    source, at = table if is_pair else gathered, 0
    total, slope, squares, plain_slope, plain_squares = 0.0, 0.0, 0.0, 0.0, 0.0
    for case in range(first, last):
        own = table[first_case + case]
        for row in range(start[case], start[case + 1]):
            if is_pair:
                at = others[row, 0]
                rest = table[at, k]
            else:
                rest = _gather(table, others, row, gathered, 0)
            error = y[row] - np.float32(bias) - own[k] - rest
            for f in range(k):
                error -= own[f] * source[at, f]
            weight = reliability[first_case + case] * _product(reliability, others, row)
            errors[row], weights[row] = error, weight
            total += weight
            slope += weight * error
            squares += weight * error * error
            plain_slope += error
            plain_squares += error * error
    return total, slope, squares, plain_slope, plain_squares


@compiled
def _draw_exclusive(
    arrays: _Arrays,
    first: int,
    last: int,
    bias: float,
    precision: float,
    mu: Doubles,
    lam: Doubles,
    records: Integers,
    few: int,
    normals: Floats,
    gammas: Doubles,
    table: Floats,
    reliability: Floats,
    theta: Floats,
    expected: Floats,
) -> None:
    """Draw r, then θ, of the features `first` to `last` of an exclusive block.

    `records` is how many each feature has; those of up to `few` are drawn by way of K. `normals`
    and `gammas` are draws of the standard distributions: for each feature one of the former for
    each of its parameters and then, by way of K, each of its records, and one of the latter, of the
    prior's shape plus half its records. Brings the cases of these features in `table` up to date.
    """
    indptr, cases, values, start, others, y, first_case = arrays
    columns = theta.shape[1]
    k = columns - 1
    # Of up to _PANEL records: where their q stands in `source`, and √w x with w = Π r.
    is_pair = others.shape[1] == 1
    gathered = np.zeros((_PANEL, k), np.float32)
    source = table if is_pair else gathered
    at = np.zeros(_PANEL, np.int64)
    scales = np.zeros(_PANEL, np.float32)
    # Each is a column √w (x q, x, y) of `panel`; sums of products of these rows are all that P and
    # b = P · mean are made of. b is one more row of `gram` and of P, further ones only fill tiles.
    size = _tiled(columns + 1)
    panel = np.zeros((size, _PANEL), np.float32)
    gram, P = np.zeros((size, size), np.float32), np.zeros((size, size))
    size_of_few = _tiled(few + 2)
    inverses = np.empty(max(size, size_of_few))
    mean, draw = np.empty(columns), np.empty(columns)
    design, K = np.zeros((size_of_few, columns)), np.zeros((size_of_few, size_of_few))
    solutions = np.empty((2, few))
    deviations = 1 / np.sqrt(lam)

    taken = 0
    for feature in range(first, last):
        count = records[feature - first]
        is_few = count <= few
        before, taken = taken, taken + columns + (count if is_few else 0)
        if indptr[feature] == indptr[feature + 1]:
            continue
        own, standard = theta[feature], normals[before:taken]
        if not is_few:
            gram[:] = _ZERO
        squared_errors = 0.0
        used = 0
        for entry in range(indptr[feature], indptr[feature + 1]):
            x = values[entry]
            for row in range(start[cases[entry]], start[cases[entry] + 1]):
                if is_pair:
                    other = others[row, 0]
                    at[used] = other
                    weight, rest = reliability[other], table[other, k]
                else:
                    at[used] = used
                    weight = _product(reliability, others, row)
                    rest = _gather(table, others, row, gathered, used)
                root = np.sqrt(weight)
                scales[used] = root * x
                panel[columns, used] = root * (y[row] - np.float32(bias) - rest)
                used += 1
                if used == _PANEL:
                    squared_errors += _fill_panel(source, at, scales, used, own, panel)
                    _add_panel(panel, used, gram)
                    used = 0
        if used:
            squared_errors += _fill_panel(source, at, scales, used, own, panel)
            if not is_few:
                _add_panel(panel, used, gram)

        own_reliability = gammas[feature - first] / (
            _RELIABILITY_SHAPE + precision * squared_errors / 2
        )
        alpha = precision * own_reliability
        if is_few:
            _draw_from_few(
                panel,
                used,
                alpha,
                mu,
                deviations,
                standard,
                design,
                K,
                inverses,
                solutions,
                mean,
                draw,
            )
        else:
            for i in range(columns + 1):
                for j in range(i + 1):
                    P[i, j] = alpha * gram[i, j]
            for i in range(columns):
                P[i, i] += lam[i]
                P[columns, i] += lam[i] * mu[i]
                draw[i] = standard[i]
            _factorize(P, size, inverses)
            _solve(P, columns, inverses, mean, draw)
        for f in range(columns):
            theta[feature, f] = _overrelaxed(mean[f], draw[f] - mean[f], own[f])
            expected[feature, f] = mean[f]
        for entry in range(indptr[feature], indptr[feature + 1]):
            case = first_case + cases[entry]
            reliability[case] = own_reliability
            for f in range(columns):
                table[case, f] = values[entry] * theta[feature, f]


@compiled_into_callers
def _overrelaxed(mean: float, deviation: float, old: float) -> float:
    """Return a parameter of this mean, given what a plain draw deviates from it and the old one."""
    return mean + _NEW * deviation - _OVERRELAXATION * (old - mean)


@compiled_into_callers
def _tiled(rows: int) -> int:
    """Return how many rows whole tiles have that hold so many."""
    return (rows + _TILE - 1) // _TILE * _TILE


@compiled_into_callers
def _in_lanes(records: int) -> int:
    """Return how many records a panel of so many has with those of weight 0 that fill it up."""
    return (records + _LANES - 1) // _LANES * _LANES


@compiled_into_callers
def _fill_panel(
    source: Floats, at: Integers, scales: Floats, used: int, own: Floats, panel: Floats
) -> float:
    """Fill the rows of a panel, but the last, of √w y, which is there; return their Σ w error²."""
    k = len(own) - 1
    whole = _in_lanes(used)
    scales[used:whole] = _ZERO
    panel[k + 1, used:whole] = _ZERO
    for r in range(0, whole, 4):  # four at once: their stores are neighbours
        at0, at1, at2, at3 = at[r], at[r + 1], at[r + 2], at[r + 3]
        scale0, scale1, scale2, scale3 = scales[r], scales[r + 1], scales[r + 2], scales[r + 3]
        for f in range(k):
            panel[f, r] = scale0 * source[at0, f]
            panel[f, r + 1] = scale1 * source[at1, f]
            panel[f, r + 2] = scale2 * source[at2, f]
            panel[f, r + 3] = scale3 * source[at3, f]
    errors = np.empty(_PANEL, np.float32)
    for r in range(whole):
        panel[k, r] = scales[r]
        errors[r] = panel[k + 1, r]
    for f in range(k + 1):
        weight = own[f]
        for r in range(whole):
            errors[r] -= weight * panel[f, r]
    squares = 0.0
    for r in range(whole):
        squares += errors[r] * errors[r]
    return squares


@compiled_into_callers
def _add_panel(panel: Floats, used: int, gram: Floats) -> None:
    """Add the records of a panel to the lower triangle of `gram`."""
    whole = _in_lanes(used)
    for i in range(0, len(panel), _TILE):
        for j in range(0, i + 1, _TILE):
            _add_products(panel, i, j, whole, _ONE, gram)


@compiled_into_callers
def _draw_from_few(
    panel: Floats,
    count: int,
    alpha: float,
    mu: Doubles,
    deviations: Doubles,
    normals: Floats,
    design: Doubles,
    K: Doubles,
    inverses: Doubles,
    solutions: Doubles,
    mean: Doubles,
    draw: Doubles,
) -> None:
    """Put in `mean` and `draw` those of θ of a feature whose `count` records are all in `panel`.

    `design` and `K` are room for Φ D^½ and K with two more rows, as P has one for b. In K these are
    a - Φ μ, of which K⁻¹ makes the mean, and -Φ (u - μ) - δ, which the draw has in addition; the
    products that add up to K add up to them too. `solutions` is room for K⁻¹ times each.
    """
    columns = len(mu)
    root = np.sqrt(alpha)
    for r in range(count):
        for f in range(columns):
            design[r, f] = root * deviations[f] * panel[f, r]
        for s in range(r):
            K[r, s] = 0.0
        K[r, r] = 1.0
        K[count, r] = root * panel[columns, r]
        K[count + 1, r] = -normals[columns + r]
    for f in range(columns):
        design[count, f] = -mu[f] / deviations[f]
        design[count + 1, f] = -normals[f]
    size = _tiled(count + 2)
    for i in range(0, size, _TILE):
        for j in range(0, i + 1, _TILE):
            _add_products(design, i, j, columns, 1.0, K)
    _factorize(K, size, inverses)
    of_mean, of_draw = solutions
    for r in range(count):
        of_draw[r] = K[count + 1, r]
    _solve(K, count, inverses, of_mean, of_draw)
    for f in range(columns):
        mean[f], draw[f] = 0.0, normals[f]
    for r in range(count):
        a, b = of_mean[r], of_draw[r]
        for f in range(columns):
            mean[f] += a * design[r, f]
            draw[f] += b * design[r, f]
    for f in range(columns):
        mean[f] = mu[f] + deviations[f] * mean[f]
        draw[f] = mu[f] + deviations[f] * draw[f]


@compiled_into_callers
def _add_products(
    A: Floats | Doubles,
    i: int,
    j: int,
    length: int,
    scale: np.float32 | float,
    out: Floats | Doubles,
) -> None:
    """Add `scale` times the products of A's rows i to i + 3 with rows j to j + 3 to `out`.

    Of the rows the first `length` elements count. As the sums are variables they stay in registers:
    sixteen products need eight loads and no store. `scale` is of the type of A.
    """
    zero = scale - scale
    s00, s01, s02, s03 = zero, zero, zero, zero
    s10, s11, s12, s13 = zero, zero, zero, zero
    s20, s21, s22, s23 = zero, zero, zero, zero
    s30, s31, s32, s33 = zero, zero, zero, zero
    for m in range(length):
        a0, a1, a2, a3 = A[i, m], A[i + 1, m], A[i + 2, m], A[i + 3, m]
        b0, b1, b2, b3 = A[j, m], A[j + 1, m], A[j + 2, m], A[j + 3, m]
        s00 += a0 * b0
        s01 += a0 * b1
        s02 += a0 * b2
        s03 += a0 * b3
        s10 += a1 * b0
        s11 += a1 * b1
        s12 += a1 * b2
        s13 += a1 * b3
        s20 += a2 * b0
        s21 += a2 * b1
        s22 += a2 * b2
        s23 += a2 * b3
        s30 += a3 * b0
        s31 += a3 * b1
        s32 += a3 * b2
        s33 += a3 * b3
    out[i, j] += scale * s00
    out[i, j + 1] += scale * s01
    out[i, j + 2] += scale * s02
    out[i, j + 3] += scale * s03
    out[i + 1, j] += scale * s10
    out[i + 1, j + 1] += scale * s11
    out[i + 1, j + 2] += scale * s12
    out[i + 1, j + 3] += scale * s13
    out[i + 2, j] += scale * s20
    out[i + 2, j + 1] += scale * s21
    out[i + 2, j + 2] += scale * s22
    out[i + 2, j + 3] += scale * s23
    out[i + 3, j] += scale * s30
    out[i + 3, j + 1] += scale * s31
    out[i + 3, j + 2] += scale * s32
    out[i + 3, j + 3] += scale * s33


@compiled_into_callers
def _factorize(P: Doubles, size: int, inverses: Doubles) -> None:
    """Put L with P = L Lᵀ (Cholesky) in the place of what is below the diagonal of P.

    Of the diagonal the inverses go to `inverses`. The first `size` rows count, whole tiles of them.
    Rows b below P become (L⁻¹ b)ᵀ; what comes after them or on their diagonal may be no number, and
    is not used.
    """
    for i in range(0, size, _TILE):
        for j in range(0, i, _TILE):
            _add_products(P, i, j, j, -1.0, P)
            p10, p20, p21 = P[j + 1, j], P[j + 2, j], P[j + 2, j + 1]
            p30, p31, p32 = P[j + 3, j], P[j + 3, j + 1], P[j + 3, j + 2]
            for r in range(i, i + _TILE):
                a = P[r, j] * inverses[j]
                b = (P[r, j + 1] - p10 * a) * inverses[j + 1]
                c = (P[r, j + 2] - p20 * a - p21 * b) * inverses[j + 2]
                d = (P[r, j + 3] - p30 * a - p31 * b - p32 * c) * inverses[j + 3]
                P[r, j], P[r, j + 1], P[r, j + 2], P[r, j + 3] = a, b, c, d
        _add_products(P, i, i, i, -1.0, P)
        # The tile on the diagonal, whose inverses are a to d.
        a = 1 / np.sqrt(P[i, i])
        p10, p20, p30 = P[i + 1, i] * a, P[i + 2, i] * a, P[i + 3, i] * a
        b = 1 / np.sqrt(P[i + 1, i + 1] - p10 * p10)
        p21, p31 = (P[i + 2, i + 1] - p20 * p10) * b, (P[i + 3, i + 1] - p30 * p10) * b
        c = 1 / np.sqrt(P[i + 2, i + 2] - p20 * p20 - p21 * p21)
        p32 = (P[i + 3, i + 2] - p30 * p20 - p31 * p21) * c
        d = 1 / np.sqrt(P[i + 3, i + 3] - p30 * p30 - p31 * p31 - p32 * p32)
        P[i + 1, i], P[i + 2, i], P[i + 3, i] = p10, p20, p30
        P[i + 2, i + 1], P[i + 3, i + 1], P[i + 3, i + 2] = p21, p31, p32
        inverses[i], inverses[i + 1], inverses[i + 2], inverses[i + 3] = a, b, c, d


@compiled_into_callers
def _solve(L: Doubles, n: int, inverses: Doubles, mean: Doubles, draw: Doubles) -> None:
    """Put P⁻¹ b in `mean`, P of n rows; of the vector in `draw` make that plus L⁻ᵀ vector."""
    for i in range(n):
        mean[i] = L[n, i]
        draw[i] += L[n, i]
    for i in range(n - 1, -1, -1):
        a, b = mean[i] * inverses[i], draw[i] * inverses[i]
        for m in range(i):
            mean[m] -= a * L[i, m]
            draw[m] -= b * L[i, m]
        mean[i], draw[i] = a, b


@compiled
def _draw_shared(
    arrays: _Arrays,
    precision: float,
    mu: Doubles,
    lam: Doubles,
    normals: Floats,
    errors: Floats,
    weights: Floats,
    table: Floats,
    theta: Floats,
    expected: Floats,
) -> None:
    """Draw the linear weights, then factor by factor v, of a block whose cases share features.

    A record scores x (u + d) more for each 1 that v_jf grows, with u the other blocks' sum of
    factors and d the case's sum without feature j. So a feature needs of its cases no more than
    sums over their records, of which the first letter says the power of the error and the second
    that of u: `sum_01` is Σ w u. `errors` is brought up to date only once a factor, as each
    record's case has by then changed by ``shift + growth * u``. Leaves `table` as it was.
    """
    indptr, cases, values, start, others, _, first_case = arrays
    k = theta.shape[1] - 1
    count = len(start) - 1
    sum_00, sum_01, sum_02 = np.zeros(count), np.zeros(count), np.zeros(count)
    sum_10, sum_11 = np.zeros(count), np.zeros(count)
    shift, growth = np.zeros(count), np.zeros(count)
    sums = np.empty(count)
    for case in range(count):
        for row in range(start[case], start[case + 1]):
            sum_00[case] += weights[row]
            sum_10[case] += weights[row] * errors[row]

    for feature in range(len(theta)):
        if indptr[feature] == indptr[feature + 1]:
            continue
        old = np.float64(theta[feature, k])
        posterior, slope = lam[k], lam[k] * (mu[k] - old)
        for entry in range(indptr[feature], indptr[feature + 1]):
            case, x = cases[entry], np.float64(values[entry])
            posterior += precision * x * x * sum_00[case]
            slope += precision * x * sum_10[case]
        mean = old + slope / posterior
        theta[feature, k] = _overrelaxed(mean, normals[k, feature] / np.sqrt(posterior), old)
        expected[feature, k] = mean
        step = theta[feature, k] - old
        for entry in range(indptr[feature], indptr[feature + 1]):
            case, x = cases[entry], np.float64(values[entry])
            sum_10[case] -= step * x * sum_00[case]
            shift[case] += step * x

    for f in range(k):
        for case in range(count):
            sums[case] = table[first_case + case, f]
            sum_01[case], sum_02[case], sum_10[case], sum_11[case] = 0.0, 0.0, 0.0, 0.0
            for row in range(start[case], start[case + 1]):
                u, u_before = 0.0, 0.0
                for other in others[row]:
                    u += table[other, f]
                    u_before += table[other, max(f - 1, 0)]
                errors[row] -= np.float32(shift[case] + growth[case] * u_before)
                weighted = weights[row] * errors[row]
                sum_01[case] += weights[row] * u
                sum_02[case] += weights[row] * u * u
                sum_10[case] += weighted
                sum_11[case] += weighted * u
        shift[:] = 0.0
        growth[:] = 0.0
        for feature in range(len(theta)):
            if indptr[feature] == indptr[feature + 1]:
                continue
            old = np.float64(theta[feature, f])
            posterior, slope = lam[f], lam[f] * (mu[f] - old)
            for entry in range(indptr[feature], indptr[feature + 1]):
                case, x = cases[entry], np.float64(values[entry])
                d = sums[case] - old * x
                square = sum_02[case] + 2 * d * sum_01[case] + d * d * sum_00[case]
                posterior += precision * x * x * square
                slope += precision * x * (sum_11[case] + d * sum_10[case])
            mean = old + slope / posterior
            theta[feature, f] = _overrelaxed(mean, normals[f, feature] / np.sqrt(posterior), old)
            expected[feature, f] = mean
            step = theta[feature, f] - old
            for entry in range(indptr[feature], indptr[feature + 1]):
                case, x = cases[entry], np.float64(values[entry])
                d = sums[case] - old * x
                sum_10[case] -= step * x * (sum_01[case] + d * sum_00[case])
                sum_11[case] -= step * x * (sum_02[case] + d * sum_01[case])
                shift[case] += step * x * d
                growth[case] += step * x
                sums[case] += step * x
