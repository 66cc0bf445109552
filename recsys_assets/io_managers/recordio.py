"""RecordIO-protobuf files: written from rows, read as a reference to what SageMaker reads.

What belongs here: files and their names. What does not: the bytes
(``recsys_assets.domain.recordio``).
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from recsys_assets.domain.recordio import write_recordio
from recsys_assets.io_managers.base import VersionedIOManager, Written
from recsys_assets.resources.object_store import Version


@dataclass(frozen=True)
class LabelledRows:
    """Rows to be written.

    Attributes
    ----------
    features, labels
        CSR float32 of shape ``(rows, feature_dim)`` and float32 labels, one a row.
    fingerprint
        The fingerprint of the rating matrix that they come from.
    rows
        Which of the rows: consecutive ones, by default all.
    rows_per_file
        Rows in each file but the last; None for one file of them all.
    """

    features: csr_matrix
    labels: npt.NDArray[np.float32]
    fingerprint: str
    rows: slice = field(default_factory=lambda: slice(None))
    rows_per_file: int | None = None


@dataclass(frozen=True)
class StoredRecordIO:
    """Where RecordIO files lie, for a job that reads them from S3.

    Attributes
    ----------
    uri
        Prefix of the files, with a slash at the end.
    files
        Their names in the order of the rows.
    rows, feature_dim
        The shape of the whole.
    fingerprint
        The fingerprint of the rating matrix that they come from.
    """

    uri: str
    files: tuple[str, ...]
    rows: int
    feature_dim: int
    fingerprint: str


class RecordIOManager(VersionedIOManager):
    """Stores LabelledRows as RecordIO files; loads a StoredRecordIO, without fetching any file."""

    def write(self, value: LabelledRows, folder: Path) -> Written:
        """Write ``part-00000.recordio`` and so on; no file at all if there are no rows."""
        rows = range(value.features.shape[0])[value.rows]
        firsts = rows[:: value.rows_per_file or max(len(rows), 1)]
        digits = max(5, len(str(len(firsts) - 1)))  # names are in the order of the rows
        for number, first in enumerate(firsts):
            write_recordio(
                folder / f"part-{number:0{digits}d}.recordio",
                value.features,
                value.labels,
                slice(first, min(first + firsts.step, rows.stop)),
            )
        return Written(
            row_count=len(rows),
            facts={"feature_dim": value.features.shape[1], "fingerprint": value.fingerprint},
        )

    def load(self, version: Version, wanted: type) -> StoredRecordIO:
        """Return where the files are."""
        return StoredRecordIO(
            uri=version.uri,
            files=tuple(file.name for file in version.files),
            rows=version.row_count or 0,
            feature_dim=version.facts["feature_dim"],
            fingerprint=version.facts["fingerprint"],
        )
