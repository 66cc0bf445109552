"""One-hot features of customers and videos, never apart from what their columns mean.

What belongs here: the matrix of customer and video indicators, its labels, its splits and its
vocabularies. What does not: choosing the ratings (``ratings.filtering``) and writing RecordIO
(``recordio``).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix

from recsys_assets.domain.ratings.filtering import SPLITS


@dataclass(frozen=True)
class Vocabulary:
    """The two-way map of ids and indices: `ids` is sorted, an id's index is its position.

    `titles` runs beside `ids` and holds None where a title is not known.
    """

    ids: pa.Array
    titles: pa.Array

    def __len__(self) -> int:
        return len(self.ids)

    def index_of(self, identifier: str) -> int:
        """Return the index of an id.

        Raises
        ------
        KeyError
            If there is no such id.
        """
        index = int(pc.index(self.ids, identifier).as_py())
        if index < 0:
            raise KeyError(f"no such id: {identifier!r}")
        return index


@dataclass(frozen=True)
class RatingMatrix:
    """Ratings as SageMaker's Factorization Machines sees them, with the maps back to ids.

    Attributes
    ----------
    features
        CSR float32 of shape ``(ratings, customers + videos)``; each row holds two ones: the
        customer's column ``customer_index`` and the video's ``customers + video_index``. Rows keep
        the order of filtered_ratings: train, validate, test.
    labels
        Stars, float32, one a row.
    split_rows
        Number of rows in each split.
    customers, videos
        The vocabularies.
    """

    features: csr_matrix
    labels: npt.NDArray[np.float32]
    split_rows: dict[str, int]
    customers: Vocabulary
    videos: Vocabulary

    @property
    def feature_dim(self) -> int:
        """Number of columns: customers and videos."""
        return len(self.customers) + len(self.videos)

    def rows(self, split: str) -> slice:
        """Return which rows belong to a split."""
        start = sum(self.split_rows[name] for name in SPLITS[: SPLITS.index(split)])
        return slice(start, start + self.split_rows[split])

    def pairs(self, split: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Return a split's customer and video indices, each int32 with one entry a row."""
        columns = self.features.indices.reshape(-1, 2)[self.rows(split)]
        return columns[:, 0], columns[:, 1] - np.int32(len(self.customers))

    def fingerprint(self) -> str:
        """Return a hash of the whole content; equal matrices of equal ids have equal ones."""
        digest = hashlib.sha256()
        digest.update(repr(sorted(self.split_rows.items())).encode())
        for array in (self.features.indices, self.features.data, self.labels):
            digest.update(np.ascontiguousarray(array).data)
        for vocabulary in (self.customers, self.videos):
            for identifier in vocabulary.ids.to_pylist():
                digest.update(identifier.encode() + b"\0")
        return digest.hexdigest()


def build_rating_matrix(filtered: Path) -> RatingMatrix:
    """Build the features of a filtered_ratings file (see ``ratings.filtering.filter_ratings``)."""
    table = pq.read_table(
        filtered,
        columns=["customer_id", "video_id", "title", "rating", "customer_index", "video_index"],
    )
    customers = _vocabulary(table, "customer")
    videos = _vocabulary(table, "video")
    indices = np.empty((table.num_rows, 2), dtype=np.int32)
    indices[:, 0] = table["customer_index"].to_numpy()
    indices[:, 1] = table["video_index"].to_numpy() + np.int32(len(customers))
    features = csr_matrix(
        (
            np.ones(2 * table.num_rows, dtype=np.float32),
            indices.reshape(-1),
            np.arange(0, 2 * table.num_rows + 1, 2, dtype=np.int64),
        ),
        shape=(table.num_rows, len(customers) + len(videos)),
        copy=False,
    )
    splits = pq.read_table(filtered, columns=["split"])["split"].value_counts().to_pylist()
    counts = {item["values"]: item["counts"] for item in splits}
    return RatingMatrix(
        features=features,
        labels=table["rating"].to_numpy().astype(np.float32),
        split_rows={split: counts.get(split, 0) for split in SPLITS},
        customers=customers,
        videos=videos,
    )


def _vocabulary(table: pa.Table, kind: str) -> Vocabulary:
    """Put the ids of `kind` at their indices."""
    has_title = kind == "video"
    columns = [f"{kind}_index", f"{kind}_id", *(["title"] if has_title else [])]
    entries = table.select(columns).group_by(columns, use_threads=False).aggregate([])
    entries = entries.sort_by(f"{kind}_index")
    ids = entries[f"{kind}_id"].combine_chunks().cast(pa.string())
    titles = (
        entries["title"].combine_chunks().cast(pa.string())
        if has_title
        else pa.nulls(len(ids), pa.string())
    )
    return Vocabulary(ids=ids, titles=titles)
