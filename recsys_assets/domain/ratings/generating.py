"""Made-up Amazon customer reviews in the shape of the Digital Video set.

What belongs here is the generator that the project runs on when it is given no ratings, and what
is known about its output: the planted signal, the malformed lines, the duplicates. Nothing here
reads ratings, and nothing that reads ratings knows the generator.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from isal import igzip_threaded
from scipy.special import ndtr, ndtri

IntArray = npt.NDArray[np.int32]

# Published facts of the Digital Video set, whose proportions hold at every size.
_FULL_ROWS, _FULL_CUSTOMERS, _FULL_VIDEOS = 4_057_147, 2_075_970, 165_760

# Share of reviews with 1, 2, 3, 4 and 5 stars.
_STAR_SHARES = (0.085, 0.045, 0.080, 0.175, 0.615)

# Offsets of the two Lomax laws (see `_long_tail`), chosen so that the full size has the published
# percentiles (5 ratings at the 95th of customers, 9 at the 75th of videos) and long-tail filter.
_CUSTOMER_OFFSET, _VIDEO_OFFSET = 2.5, 3.0
_LARGEST_VIDEO_SHARE = 0.01  # the most reviewed video's share of all reviews

# Standard deviations of what a latent opinion is the sum of. Stars are cut from it at quantiles,
# so only their ratios matter.
_CUSTOMER_SD, _VIDEO_SD, _NOISE_SD = 0.45, 0.50, 0.50
_FACTOR_SDS = (0.60, 0.25, 0.15)  # of the product of each customer factor with its video factor

_DUPLICATE_SHARE = 0.003  # of the rows repeat their customer's previous video
_QUOTE_SHARE = 0.03  # of the bodies hold one `"`

_CHUNK_ROWS = 100_000
_MOST_BODY_WORDS = 1000  # a chunk's text has to stay below the 2 GB of an Arrow array
_COMPRESSION = 3  # ISA-L's highest level; the size is that of gzip's level 3
_CORPUS_WORDS = 200_000
_LAST_DAY, _DAYS = np.datetime64("2015-08-31"), 5_500
_COLUMNS = (
    "marketplace",
    "customer_id",
    "review_id",
    "product_id",
    "product_parent",
    "product_title",
    "product_category",
    "star_rating",
    "helpful_votes",
    "total_votes",
    "vine",
    "verified_purchase",
    "review_headline",
    "review_body",
    "review_date",
)
_HEADLINES = ("One Star", "Two Stars", "Three Stars", "Four Stars", "Five Stars")
_BODY_VOCABULARY = """
the the the the and and and a a a of of to to is is it it this this that was was in in I I but
for with as on not you my we they have had one so be are its all very just more good great story
film movie series season episode show cast acting plot scene ending picture quality sound
streaming watch watched watching again never always really loved liked hated enjoyed boring slow
funny clever dark touching beautiful excellent terrible awful amazing predictable surprising
realistic family kids children husband wife friends evening weekend character characters actor
actress director writing dialogue music costumes history war detective murder comedy drama
documentary classic original sequel remake book better worse best worst first last second third
another many few some time money minutes hours years would could should recommend waiting wish
think thought felt found made makes keeps kept well. perfect! yes, however, still, overall,
definitely. honestly, again! enough. end. rental. it. them. us. you'll don't didn't can't I'm
"""
_ADJECTIVES = """
Silent Broken Golden Hidden Last Lost Crimson Distant Forgotten Wild Quiet Burning Frozen Secret
Endless Midnight Northern Savage Gentle Hollow Bright Restless Stolen Crooked
"""
_NOUNS = """
River Garden Station Harbor Empire Promise Winter Shadow Mirror Letter Stranger Orchard Kingdom
Signal Bridge Voyage Lantern Witness Daughter Detective Island Café Niño Highway Carnival
Verdict Colony Summit Echo Clockmaker
"""
_TITLE_PATTERNS: tuple[Callable[[str, str, str], str], ...] = (
    lambda adjective, noun, _: f"The {adjective} {noun}",
    lambda adjective, noun, other: f"{adjective} {noun} of the {other}",
    lambda adjective, noun, other: f"The {noun} and the {other}",
    lambda adjective, noun, _: f"{adjective} {noun} [HD]",
    lambda _, noun, other: f"{noun}: A {other} Story",
)


@dataclass(frozen=True)
class GeneratedReviews:
    """What was written, and what is planted in it.

    Attributes
    ----------
    path : Path
        The gzip file.
    rows : int
        Lines below the header, malformed ones included.
    customers, videos : int
        Distinct ids drawn from. Each has at least one row.
    malformed_rows : int
        Lines that no reader can take as a rating.
    duplicate_rows : int
        Well-formed rows beyond the first of their (customer, video) pair.
    noise_sigma : float
        Standard deviation of the noise as a share of the whole latent opinion's.
    oracle_rmse : float
        RMSE in stars, over the well-formed rows, of the best possible prediction: the expected
        stars of someone who knows every bias and factor but not the noise.
    """

    path: Path
    rows: int
    customers: int
    videos: int
    malformed_rows: int
    duplicate_rows: int
    noise_sigma: float
    oracle_rmse: float


def generate_amazon_reviews(
    path: Path,
    *,
    rows: int = 120_000,
    seed: int = 7,
    body_words: int = 45,
    malformed_share: float = 0.0005,
) -> GeneratedReviews:
    """Write reviews in the Amazon customer-reviews layout (TSV, gzip, 15 columns, unquoted).

    A rating is cut from a latent opinion: a bias of the customer, a bias of the video, three
    latent factors and noise, all normal. How many ratings a customer and a video have follows
    long-tailed laws with the published percentiles of the Digital Video set; a smaller file has a
    smaller catalogue of the same shape. Some bodies hold an unbalanced ``"``, some customers
    review a video twice, some lines are malformed, and reviews come newest first, as published.

    Memory is some 40 bytes a row for who rated what; the text is made in chunks.

    Parameters
    ----------
    path
        File to write, overwritten if there.
    rows
        Lines below the header, 100 to 100,000,000. 4,057,147 is the full size.
    seed
        The same arguments give the same text on one version of numpy, and the same gzip bytes on
        one version of ISA-L.
    body_words
        Mean number of words in a review body, at most 1,000; 45 is about the real length, 1 makes
        small files.
    malformed_share
        Share of the rows written malformed, in every way that a reader has to survive.

    Raises
    ------
    ValueError
        If `rows`, `body_words` or `malformed_share` is out of range.
    """
    if not 100 <= rows <= 100_000_000:
        raise ValueError(f"rows must be between 100 and 100,000,000, got {rows}")
    if not 1 <= body_words <= _MOST_BODY_WORDS:
        raise ValueError(f"body_words must be between 1 and {_MOST_BODY_WORDS}, got {body_words}")
    if not 0 <= malformed_share <= 0.5:
        raise ValueError(f"malformed_share must be between 0 and 0.5, got {malformed_share}")

    rng = np.random.default_rng(seed)
    customers = round(rows * _FULL_CUSTOMERS / _FULL_ROWS)
    videos = round(rows * _FULL_VIDEOS / _FULL_ROWS)
    customer, video, repeats = _who_rated_what(rng, rows, customers, videos)
    opinions = _Opinions(rng, customers, videos)
    malformed = np.zeros(rows, dtype=bool)
    malformed[
        rng.choice(np.flatnonzero(~repeats), round(rows * malformed_share), replace=False)
    ] = True
    text = _Text(rng, videos, body_words)
    spoilers = itertools.cycle(_SPOILERS)

    squared_error = 0.0
    with _compressed(path) as out:
        out.write("\t".join(_COLUMNS).encode() + b"\n")
        for start in range(0, rows, _CHUNK_ROWS):
            part = slice(start, min(start + _CHUNK_ROWS, rows))
            stars, expected = opinions.stars(rng, customer[part], video[part])
            well_formed = ~malformed[part]
            squared_error += float(((stars - expected)[well_formed] ** 2).sum())
            lines = text.lines(rng, start, rows, customer[part], video[part], stars)
            spoilt = [
                # A surrogate stands for a byte that is not UTF-8.
                next(spoilers)(line.split("\t")).encode(errors="surrogateescape")
                for line in lines.filter(pa.array(malformed[part])).to_pylist()
            ]
            out.write(_joined(lines, malformed[part], spoilt))
            out.write(b"\n")

    malformed_rows = int(malformed.sum())
    return GeneratedReviews(
        path=path,
        rows=rows,
        customers=customers,
        videos=videos,
        malformed_rows=malformed_rows,
        duplicate_rows=len(_repeated_pairs(customer[~malformed], video[~malformed])),
        noise_sigma=_NOISE_SD / opinions.sd,
        oracle_rmse=float(np.sqrt(squared_error / (rows - malformed_rows))),
    )


def _compressed(path: Path) -> BinaryIO:
    """Open a gzip file to write to, which a thread beside this one compresses."""
    file: BinaryIO = igzip_threaded.open(  # type: ignore[no-untyped-call]
        path, "wb", compresslevel=_COMPRESSION, threads=1
    )
    return file


def _joined(
    lines: pa.StringArray, malformed: npt.NDArray[np.bool_], spoilt: list[bytes]
) -> pa.Buffer:
    """Return the lines as one text, with the spoilt ones in the places of those malformed."""
    whole = pc.replace_with_mask(
        lines.cast(pa.binary()), pa.array(malformed), pa.array(spoilt, pa.binary())
    )
    one_list = pa.ListArray.from_arrays([0, len(whole)], whole)
    return pc.binary_join(one_list, b"\n")[0].as_buffer()


def _long_tail(count: int, total: int, offset: float, largest: int) -> IntArray:
    """Ratings of each of `count` customers or videos, ascending, `total` in all, at least 1 each.

    They are evenly spaced quantiles of a Lomax law, P(X >= 1 + x) = (1 + x / offset) ** -shape,
    rounded down and cut at `largest`; its shape is the one that gives the total.
    """
    remaining = 1 - (np.arange(count) + 0.5) / count
    logarithm = np.log(remaining)

    def degrees(shape: float) -> IntArray:
        tail = offset * np.expm1(np.minimum(-logarithm / shape, 40))
        return np.minimum(1 + tail, largest).astype(np.int32)

    low, high = 0.2, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if degrees(middle).sum() > total else (low, middle)
    result = degrees(high)  # a few too few, by the steps of rounding down
    missing = total - int(result.sum())
    result[count - missing % count :] += 1
    return result + missing // count


def _who_rated_what(
    rng: np.random.Generator, rows: int, customers: int, videos: int
) -> tuple[IntArray, IntArray, npt.NDArray[np.bool_]]:
    """Draw customer and video of each row in file order, and the rows that repeat a pair."""
    ratings_of_customer = _long_tail(customers, rows, _CUSTOMER_OFFSET, largest=videos)
    ratings_of_video = _long_tail(
        videos, rows, _VIDEO_OFFSET, largest=max(round(rows * _LARGEST_VIDEO_SHARE), 1)
    )
    customer = np.repeat(np.arange(customers, dtype=np.int32), ratings_of_customer)
    video = np.repeat(np.arange(videos, dtype=np.int32), ratings_of_video)
    rng.shuffle(video)
    # Chance pairs the same two again and again where both have many ratings. People don't, so
    # such rows swap videos with others until (nearly) none is left.
    for _ in range(20):
        repeated = _repeated_pairs(customer, video)
        if not len(repeated):
            break
        other = rng.choice(rows, len(repeated), replace=False)
        video[repeated], video[other] = video[other], video[repeated]

    second = np.flatnonzero(customer[1:] == customer[:-1]) + 1
    repeats = np.zeros(rows, dtype=bool)
    repeats[rng.choice(second, min(round(rows * _DUPLICATE_SHARE), len(second)), False)] = True
    video[repeats] = video[np.flatnonzero(repeats) - 1]

    order = np.arange(rows, dtype=np.int32)
    rng.shuffle(order)
    return customer[order], video[order], repeats[order]


def _repeated_pairs(customer: IntArray, video: IntArray) -> npt.NDArray[np.int64]:
    """Rows whose (customer, video) pair stands on an earlier row too."""
    pair = customer.astype(np.int64) << 32 | video
    order = np.argsort(pair, kind="stable")
    pair = pair[order]
    repeated: npt.NDArray[np.int64] = order[1:][pair[1:] == pair[:-1]]
    return repeated


class _Opinions:
    """The planted signal: who likes what, and how much chance there is in it."""

    def __init__(self, rng: np.random.Generator, customers: int, videos: int) -> None:
        factor_scale = np.sqrt(np.array(_FACTOR_SDS, dtype=np.float32))
        self._customer_bias = rng.standard_normal(customers, np.float32) * _CUSTOMER_SD
        self._video_bias = rng.standard_normal(videos, np.float32) * _VIDEO_SD
        shape = len(_FACTOR_SDS)
        self._customer_factors = rng.standard_normal((customers, shape), np.float32) * factor_scale
        self._video_factors = rng.standard_normal((videos, shape), np.float32) * factor_scale
        self.sd = float(
            np.sqrt(_CUSTOMER_SD**2 + _VIDEO_SD**2 + _NOISE_SD**2 + sum(s**2 for s in _FACTOR_SDS))
        )
        self._thresholds = ndtri(np.cumsum(_STAR_SHARES)[:-1]) * self.sd

    def stars(
        self, rng: np.random.Generator, customer: IntArray, video: IntArray
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Stars (1 to 5) of each row, and their expected value were the noise not known."""
        opinion = (
            self._customer_bias[customer]
            + self._video_bias[video]
            + np.einsum("ij,ij->i", self._customer_factors[customer], self._video_factors[video])
        ).astype(np.float64)
        noise = rng.standard_normal(len(opinion)) * _NOISE_SD
        stars = 1 + np.searchsorted(self._thresholds, opinion + noise)
        expected = 1 + sum(ndtr((opinion - cut) / _NOISE_SD) for cut in self._thresholds)
        return stars, np.asarray(expected)


class _Text:
    """Everything about a review that is not who, what and how many stars."""

    def __init__(self, rng: np.random.Generator, videos: int, body_words: int) -> None:
        self._body_words = body_words
        adjectives, nouns = _ADJECTIVES.split(), _NOUNS.split()
        choices = (_TITLE_PATTERNS, adjectives, nouns, nouns)
        picks = (rng.integers(len(words), size=videos).tolist() for words in choices)
        self._titles = pa.array(
            _TITLE_PATTERNS[pattern](adjectives[adjective], nouns[noun], nouns[other])
            for pattern, adjective, noun, other in zip(*picks, strict=True)
        )
        # A body is a run of words of one long text, cut out by offsets.
        vocabulary = _BODY_VOCABULARY.split()
        picked = rng.integers(len(vocabulary), size=_CORPUS_WORDS).tolist()
        words = [vocabulary[index] for index in picked]
        self._corpus = " ".join(words) + " "
        self._word_starts = np.cumsum([0] + [len(word) + 1 for word in words])

    def lines(
        self,
        rng: np.random.Generator,
        first: int,
        rows: int,
        customer: IntArray,
        video: IntArray,
        stars: npt.NDArray[np.int64],
    ) -> pa.StringArray:
        """Lines of the rows from number `first` on, of `rows` in the whole file, without ends."""
        size = len(stars)
        number = np.arange(first, first + size)
        # Reviews grow more frequent with time; the newest come first.
        dates = _LAST_DAY - (_DAYS * (number / rows) ** 2.5).astype("timedelta64[D]")
        helpful, unhelpful = rng.geometric(0.6, size), rng.integers(3, size=size)
        verified = rng.random(size) < 0.85
        columns = (
            "US",
            _text(_scattered(customer, 10**8)),
            _hexadecimal("R", _scattered(number, 16**13), 13),
            _hexadecimal("B", _scattered(video, 16**9), 9),
            _text(_scattered(video, 10**9)),
            self._titles.take(pa.array(video)),
            "Digital_Video_Download",
            _text(stars),
            _text(helpful),
            _text(helpful + unhelpful),
            "N",
            pa.array(["N", "Y"]).take(pa.array(verified.astype(np.int8))),
            pa.array(_HEADLINES).take(pa.array(stars - 1)),
            pa.array(self._bodies(rng, size)),
            _text(dates),
        )
        return pc.binary_join_element_wise(*columns, "\t")

    def _bodies(self, rng: np.random.Generator, size: int) -> list[str]:
        longest = min(10 * self._body_words, _CORPUS_WORDS // 2)
        words = np.ceil(rng.exponential(self._body_words, size)).clip(1, longest).astype(np.int64)
        first = rng.integers(_CORPUS_WORDS - longest, size=size)
        bodies = [
            self._corpus[start : end - 1]
            for start, end in zip(
                self._word_starts[first].tolist(),
                self._word_starts[first + words].tolist(),
                strict=True,
            )
        ]
        for index in np.flatnonzero(rng.random(size) < _QUOTE_SHARE).tolist():
            bodies[index] = '"' + bodies[index]
        return bodies


def _text(values: npt.NDArray[Any]) -> pa.StringArray:
    """Whole numbers in digits, dates in ISO 8601."""
    return pa.array(values).cast(pa.string())


def _hexadecimal(prefix: str, numbers: npt.NDArray[np.int64], digits: int) -> pa.StringArray:
    """Numbers in so many hexadecimal digits, each behind the prefix."""
    shifts = 4 * np.arange(digits)[::-1]
    text = np.frombuffer(b"0123456789ABCDEF", np.uint8)[numbers[:, None] >> shifts & 15]
    return pc.binary_join_element_wise(
        prefix, pa.array(text.view(f"S{digits}").ravel()).cast(pa.string()), ""
    )


def _scattered(number: npt.NDArray[np.integer[Any]], size: int) -> npt.NDArray[np.int64]:
    """Map numbers below `size` one to one to numbers below `size` that look like no sequence."""
    # An odd multiplier that 5 does not divide has an inverse modulo any power of 10 or 16.
    return (number.astype(np.int64) + 1) * 45_035_996_273 % size


def _replaced(column: str, value: str) -> Callable[[list[str]], str]:
    position = _COLUMNS.index(column)
    return lambda fields: "\t".join([*fields[:position], value, *fields[position + 1 :]])


# The ways in which a line is malformed, in turn.
_SPOILERS: tuple[Callable[[list[str]], str], ...] = (
    lambda fields: "\t".join(fields[:9]),
    lambda fields: "\t".join([*fields, "one field too many"]),
    _replaced("star_rating", ""),
    _replaced("star_rating", "five"),
    _replaced("star_rating", "nan"),
    _replaced("star_rating", "9"),
    _replaced("customer_id", ""),
    _replaced("product_id", "B00\udcff\udcfe"),
    _replaced("product_id", "B00\0"),
)
