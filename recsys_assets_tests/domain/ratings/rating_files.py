"""Files of ratings written out byte by byte, and what comes of reading them; shared by tests."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from recsys_assets.domain.ratings.reading import ReadReport, read_ratings

AMAZON_HEADER = (
    b"marketplace\tcustomer_id\treview_id\tproduct_id\tproduct_parent\tproduct_title\t"
    b"product_category\tstar_rating\thelpful_votes\ttotal_votes\tvine\tverified_purchase\t"
    b"review_headline\treview_body\treview_date"
)


def amazon_line(
    customer: bytes = b"11",
    video: bytes = b"B001",
    stars: bytes = b"5",
    *,
    review: bytes = b"R1",
    title: bytes = b"A Title",
    body: bytes = b"a body",
    date: bytes = b"2015-08-31",
) -> bytes:
    fields = [b"US", customer, review, video, b"7", title, b"Digital_Video_Download", stars]
    return b"\t".join([*fields, b"0", b"0", b"N", b"Y", b"headline", body, date])


def amazon(*lines: bytes, end: bytes = b"\n") -> bytes:
    return b"".join(line + end for line in (AMAZON_HEADER, *lines))


class Outcome(NamedTuple):
    """What reading gave."""

    report: ReadReport
    ratings: list[dict[str, Any]]
    rejects: list[dict[str, Any]]

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.ratings]

    @property
    def reasons(self) -> list[tuple[int, str | None, str]]:
        """Line, column and reason of each reject."""
        return [(row["line"], row["column"], row["reason"]) for row in self.rejects]


def read(source: Path, **options: Any) -> Outcome:
    """Read a source, check that the report agrees with the tables, and return all three."""
    into = source.parent / f"{source.name}.read"
    report = read_ratings(source, into, **options)
    ratings = pq.read_table(into / "ratings.parquet").to_pylist()
    rejects = pq.read_table(into / "rejects.parquet").to_pylist()
    assert report.rows_kept == len(ratings)
    assert report.rows_rejected == len(rejects) == sum(report.rejects_by_reason.values())
    assert report.rows_read == report.rows_kept + report.rows_rejected
    return Outcome(report, ratings, rejects)


def read_bytes(folder: Path, name: str, data: bytes, **options: Any) -> Outcome:
    """Read one file of these bytes."""
    (folder / name).write_bytes(data)
    return read(folder / name, **options)


def cut_gzip(lines: Sequence[bytes], keep: float) -> bytes:
    """Gzip of the lines, cut off after a share of its bytes."""
    data = gzip.compress(b"".join(lines), mtime=0)
    return data[: int(len(data) * keep)]
