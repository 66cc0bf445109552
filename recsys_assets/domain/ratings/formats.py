"""The formats in which ratings come, and how a file's format is recognised.

What belongs here: column names, scales, separators, and the decision by header and first lines.
What does not: opening files (``streams.py``), splitting lines (``fields.py``) and checking values
(``reading.py``); nothing here touches a disk.

How `auto` decides, for one file, in this order:

1. A header, the first line that is not blank, decides by its names: a table if it has the needed
   columns of `TableColumns`, Amazon reviews by ``customer_id``, ``product_id``, ``star_rating``,
   MovieLens by ``userId``, ``movieId``, ``rating``. A Parquet file's schema counts as its header.
   A tab in the header makes the file unquoted TSV, otherwise it is CSV with quotes.
2. ``::`` between fields means MovieLens or MovieTweetings. Which of the two is decided by the
   ratings of all files, not by the first lines: 0, or above 5 and up to 10, means the 0 to 10 scale
   of MovieTweetings. A value that fits neither scale (-3, 978300760) is a broken row on both and
   decides nothing.
3. Four tab-separated fields with numbers in the last two are MovieLens ``u.data``.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from recsys_assets.domain.ratings.rejects import RatingsError

NEEDED = ("customer_id", "video_id", "rating")
"""Columns without which there is no rating, by the names they have in ``ratings.parquet``."""

AUTO, AMAZON, MOVIELENS, MOVIETWEETINGS, TABLE = FORMATS = (
    "auto",
    "amazon",
    "movielens",
    "movietweetings",
    "table",
)
"""What ``--format`` takes."""


@dataclass(frozen=True)
class Scale:
    """The lowest and highest rating that a format knows, both included."""

    low: float
    high: float

    def to_stars(self, rating: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Map ratings linearly to 1 to 5 if the scale is 0 to 10; others are in stars already."""
        return 1 + 0.4 * rating if (self.low, self.high) == (0, 10) else rating


SCALES: Mapping[str, Scale] = {
    AMAZON: Scale(1, 5),
    MOVIELENS: Scale(0.5, 5),
    MOVIETWEETINGS: Scale(0, 10),
    TABLE: Scale(1, 5),
}


@dataclass(frozen=True)
class TableColumns:
    """Names of a table's columns.

    ``customer_id``, ``video_id`` and ``rating`` are needed. The others may be missing under their
    default names; one that is named otherwise has to be there.
    """

    customer_id: str = "customer_id"
    video_id: str = "video_id"
    rating: str = "rating"
    title: str | None = "title"
    reviewed_at: str | None = "reviewed_at"
    review_id: str | None = "review_id"

    def needed(self) -> list[str]:
        """Names without which a table is not read."""
        default = asdict(TableColumns())
        return [
            name
            for column, name in asdict(self).items()
            if name is not None and (column in NEEDED or name != default[column])
        ]


_AMAZON_COLUMNS = TableColumns(
    "customer_id", "product_id", "star_rating", "product_title", "review_date", "review_id"
)
_MOVIELENS_COLUMNS = TableColumns("userId", "movieId", "rating", None, "timestamp", None)
_HEADERLESS = {"customer_id": 0, "video_id": 1, "rating": 2, "reviewed_at": 3}


class Container(StrEnum):
    """How a file separates rows and fields."""

    DELIMITED = "delimited"  # unquoted lines
    CSV = "csv"  # comma-separated, quoted
    PARQUET = "parquet"


@dataclass(frozen=True)
class Layout:
    """Where one file holds what.

    Attributes
    ----------
    format : str
        One of `FORMATS`, not ``auto``.
    container : Container
        How rows and fields are separated.
    width : int
        Fields on each line.
    positions : dict of str to int
        Position of each column that is there, from 0, by its name in ``ratings.parquet``.
    names : dict of str to str
        Name of each in the file; where there is no header, its name in ``ratings.parquet``.
    separator : bytes
        Between the fields of a delimited file.
    header_line : int
        Line of the header, from 1; 0 if there is none.
    """

    format: str
    container: Container
    width: int
    positions: Mapping[str, int]
    names: Mapping[str, str]
    separator: bytes = b"\t"
    header_line: int = 0

    @property
    def scale(self) -> Scale:
        """The scale of the format."""
        return SCALES[self.format]


@dataclass(frozen=True)
class Wanted:
    """What the caller asks for: a format, and the names of a table's columns.

    Raises
    ------
    RatingsError
        If there is no such format.
    """

    format: str = AUTO
    columns: TableColumns = field(default_factory=TableColumns)

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise RatingsError(
                f"unknown format {self.format!r}: expected one of {', '.join(FORMATS)}"
            )

    def allows(self, *formats: str) -> bool:
        """Whether one of `formats` may come."""
        return self.format == AUTO or self.format in formats


def recognise_lines(lines: Sequence[str], wanted: Wanted) -> Layout:
    """Layout of a text file from its first lines.

    Where ``::`` leaves MovieLens and MovieTweetings open, the answer is MovieLens.

    Parameters
    ----------
    lines
        The first lines, blank ones included, without line ends.
    wanted
        The format, or ``auto``.

    Raises
    ------
    RatingsError
        If the lines are of no known format, not of the one asked for, or lack a needed column; the
        message says what was expected and what came.
    """
    header_line = next((number for number, line in enumerate(lines, 1) if line.strip()), 0)
    if not header_line:
        what = "it holds only blank lines" if any(lines) or len(lines) > 1 else "it is empty"
        raise RatingsError(f"expected {_expected(wanted)}; {what}")
    header = lines[header_line - 1]
    if "\t" in header:
        names, container = header.split("\t"), Container.DELIMITED
    else:
        names, container = _csv_names(header), Container.CSV
    named = _by_names(names, container, wanted)
    if named and not named.missing:
        return replace(named.layout, header_line=header_line)
    for separator, formats in (("::", (MOVIELENS, MOVIETWEETINGS)), ("\t", (MOVIELENS,))):
        if wanted.allows(*formats) and any(_is_headerless(line, separator) for line in lines):
            return Layout(
                format=MOVIELENS if wanted.format == AUTO else wanted.format,
                container=Container.DELIMITED,
                width=len(_HEADERLESS),
                positions=_HEADERLESS,
                names={column: column for column in _HEADERLESS},
                separator=separator.encode(),
            )
    if named:
        raise named.error()
    raise RatingsError(f"expected {_expected(wanted)}; it begins with {header[:200]!r}")


def recognise_names(names: Sequence[str], wanted: Wanted) -> Layout:
    """Layout of a Parquet file from its column names; errors as for `recognise_lines`."""
    named = _by_names(names, Container.PARQUET, wanted)
    if named is None:
        raise RatingsError(
            f"expected {_expected(wanted)}; its columns are {', '.join(names)[:200]}"
        )
    if named.missing:
        raise named.error()
    return named.layout


@dataclass(frozen=True)
class _Named:
    """What a header's names come nearest to."""

    layout: Layout
    missing: Sequence[str]
    came: Sequence[str]

    def error(self) -> RatingsError:
        return RatingsError(
            f"as {self.layout.format} it needs the column{'s' * (len(self.missing) > 1)} "
            f"{', '.join(self.missing)}; it has {', '.join(self.came)[:500]}"
        )


def _by_names(names: Sequence[str], container: Container, wanted: Wanted) -> _Named | None:
    """Return the allowed format with the fewest columns missing; None if it has no needed one."""
    came = [name.strip() for name in names]
    candidates = [
        (TABLE, wanted.columns, wanted.columns.needed()),
        (AMAZON, _AMAZON_COLUMNS, ["customer_id", "product_id", "star_rating"]),
        (MOVIELENS, _MOVIELENS_COLUMNS, ["userId", "movieId", "rating"]),
    ]
    found = []
    for format_name, columns, needed in candidates:
        missing = [name for name in needed if name not in came]
        # Asked for by name, a format is named in the error however little of it came.
        if wanted.format == format_name or (wanted.format == AUTO and len(missing) < len(NEEDED)):
            there = {column: name for column, name in asdict(columns).items() if name in came}
            layout = Layout(
                format=format_name,
                container=container,
                width=len(came),
                positions={column: came.index(name) for column, name in there.items()},
                names=there,
            )
            found.append(_Named(layout, missing, came))
    return min(found, key=lambda named: len(named.missing), default=None)


def _csv_names(header: str) -> list[str]:
    try:
        return next(csv.reader([header]))
    except csv.Error:  # anything may stand on the first line of a file that is no CSV
        return [header]


def _is_headerless(line: str, separator: str) -> bool:
    fields = line.split(separator)
    if len(fields) != len(_HEADERLESS):
        return False
    return separator == "::" or all(_is_number(value) for value in fields[2:])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _expected(wanted: Wanted) -> str:
    descriptions = {
        AMAZON: "Amazon customer reviews (TSV with the columns customer_id, product_id, "
        "star_rating)",
        MOVIELENS: "MovieLens (ratings.csv with userId,movieId,rating; ratings.dat with ::; u.data "
        "with tabs)",
        MOVIETWEETINGS: "MovieTweetings (ratings.dat with ::)",
        TABLE: f"a CSV or Parquet table with the columns {', '.join(wanted.columns.needed())}",
    }
    return " or ".join(text for name, text in descriptions.items() if wanted.allows(name))
