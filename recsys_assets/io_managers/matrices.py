"""Rating matrices: npz without pickles, with their vocabularies as Parquet.

What belongs here: the files of a RatingMatrix. What does not: how it is built.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix

from recsys_assets.domain.features import RatingMatrix, Vocabulary
from recsys_assets.io_managers.base import VersionedIOManager, Written
from recsys_assets.resources.object_store import Version

_MATRIX = "matrix.npz"
_VOCABULARIES = ("customers", "videos")


class RatingMatrixIOManager(VersionedIOManager):
    """Stores a RatingMatrix: ``matrix.npz``, ``customers.parquet`` and ``videos.parquet``."""

    def write(self, value: RatingMatrix, folder: Path) -> Written:
        """Write the matrix and its vocabularies."""
        np.savez(
            folder / _MATRIX,
            allow_pickle=False,
            indptr=value.features.indptr,
            indices=value.features.indices,
            data=value.features.data,
            shape=np.array(value.features.shape, dtype=np.int64),
            labels=value.labels,
        )
        for name in _VOCABULARIES:
            vocabulary: Vocabulary = getattr(value, name)
            table = pa.table({"id": vocabulary.ids, "title": vocabulary.titles})
            pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
        return Written(
            row_count=value.features.shape[0],
            facts={
                "split_rows": value.split_rows,
                "feature_dim": value.feature_dim,
                "fingerprint": value.fingerprint(),
            },
        )

    def load(self, version: Version, wanted: type) -> RatingMatrix:
        """Return the matrix with its vocabularies."""
        with self.fetched(version) as folder:
            with np.load(folder / _MATRIX, allow_pickle=False) as arrays:
                features = csr_matrix(
                    (arrays["data"], arrays["indices"], arrays["indptr"]),
                    shape=tuple(arrays["shape"]),
                    copy=False,
                )
                labels = arrays["labels"]
            vocabularies = {name: _vocabulary(folder / f"{name}.parquet") for name in _VOCABULARIES}
        return RatingMatrix(
            features=features,
            labels=labels,
            split_rows=version.facts["split_rows"],
            **vocabularies,
        )


def _vocabulary(path: Path) -> Vocabulary:
    table = pq.read_table(path).combine_chunks()
    ids, titles = (table[name].combine_chunks().cast(pa.string()) for name in ("id", "title"))
    return Vocabulary(ids=ids, titles=titles)
