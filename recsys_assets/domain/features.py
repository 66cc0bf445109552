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
from scipy.sparse import csr_matrix, get_index_dtype

from recsys_assets.domain.ratings.filtering import SPLITS

_COLUMNS = [
    "customer_id",
    "video_id",
    "title",
    "rating",
    "customer_index",
    "video_index",
    "split",
]


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
        CSR float32 of shape ``(ratings, customers + videos)`` with int32 indices; each row holds
        two ones: the customer's column ``customer_index`` and the video's ``customers +
        video_index``. Rows keep the order of filtered_ratings: train, validate, test.
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
            for buffer in _string_buffers(vocabulary.ids):
                digest.update(buffer)
        return digest.hexdigest()


def build_rating_matrix(filtered: Path, *, batch_rows: int = 1 << 17) -> RatingMatrix:
    """Build the features of a filtered_ratings file.

    Rows are streamed into arrays that are allocated once: beside the matrix, memory holds one batch
    of rows at a time.

    Parameters
    ----------
    filtered
        Parquet file, as ``ratings.filtering.filter_ratings`` writes it.
    batch_rows
        Rows to read at a time; they do not show in the matrix.

    Raises
    ------
    ValueError
        If the indices of customers or of videos are not 0, 1, 2 and so on without a gap.
    """
    split_rows = dict.fromkeys(SPLITS, 0)
    customers, videos = _VocabularyBuilder("customer"), _VocabularyBuilder("video")
    # Buffered ahead, the whole file would be in memory.
    with pq.ParquetFile(filtered, pre_buffer=False) as file:
        rows = file.metadata.num_rows
        columns = np.empty((rows, 2), dtype=np.int32)
        labels = np.empty(rows, dtype=np.float32)
        end = 0
        for batch in file.iter_batches(batch_rows, columns=_COLUMNS):
            start, end = end, end + batch.num_rows
            columns[start:end, 0] = batch["customer_index"].to_numpy()
            columns[start:end, 1] = batch["video_index"].to_numpy()
            labels[start:end] = batch["rating"].to_numpy()
            for item in batch["split"].value_counts().to_pylist():
                split_rows[item["values"]] += item["counts"]
            customers.add(columns[start:end, 0], batch["customer_id"])
            videos.add(columns[start:end, 1], batch["video_id"], batch["title"])
    columns[:, 1] += len(customers)
    features = csr_matrix(
        (
            np.ones(2 * rows, dtype=np.float32),
            columns.reshape(-1),
            np.arange(0, 2 * rows + 1, 2, dtype=get_index_dtype(maxval=2 * rows)),
        ),
        shape=(rows, len(customers) + len(videos)),
        copy=False,
    )
    return RatingMatrix(features, labels, split_rows, customers.build(), videos.build())


class _VocabularyBuilder:
    """Gathers ids and titles from batches of rows, each of them once."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._is_known = np.zeros(0, dtype=np.bool_)
        self._indices: list[npt.NDArray[np.int32]] = []
        self._entries: list[pa.Table] = []

    def __len__(self) -> int:
        return len(self._is_known)

    def add(
        self, indices: npt.NDArray[np.int32], ids: pa.Array, titles: pa.Array | None = None
    ) -> None:
        """Take the ids, and titles if there are any, of the indices that are new."""
        missing = int(indices.max(initial=-1)) + 1 - len(self)
        if missing > 0:
            self._is_known = np.append(self._is_known, np.zeros(missing, dtype=np.bool_))
        rows = np.flatnonzero(~self._is_known[indices])
        if not len(rows):
            return
        new, first = np.unique(indices[rows], return_index=True)
        self._is_known[new] = True
        self._indices.append(new)
        taken = pa.array(rows[first])
        self._entries.append(
            pa.table(
                {
                    "id": ids.take(taken).cast(pa.string()),
                    "title": pa.nulls(len(new), pa.string())
                    if titles is None
                    else titles.take(taken).cast(pa.string()),
                }
            )
        )

    def build(self) -> Vocabulary:
        """Put the ids at their indices."""
        if not self._is_known.all():
            raise ValueError(
                f"expected {self._kind} indices without a gap up to {len(self) - 1}, found none "
                f"that is {int(np.flatnonzero(~self._is_known)[0])}"
            )
        order = np.argsort(np.concatenate(self._indices))
        entries = pa.concat_tables(self._entries).take(pa.array(order)).combine_chunks()
        ids, titles = (entries[name].combine_chunks() for name in ("id", "title"))
        return Vocabulary(ids=ids, titles=titles)


def _string_buffers(strings: pa.Array) -> tuple[memoryview, memoryview]:
    """Return the lengths and the bytes of strings, whatever lies around them in their buffers."""
    lengths = pc.binary_length(strings).to_numpy()
    _, offsets, content = strings.buffers()
    first, last = np.frombuffer(offsets, dtype=np.int32)[
        [strings.offset, strings.offset + len(strings)]
    ]
    return lengths.data, memoryview(content)[first:last]
