"""IO managers: how the value of each kind of asset becomes objects in S3, and comes back.

What belongs here: formats and what is written down about them. What does not: where objects lie
and when they become visible (``recsys_assets.resources.object_store``).
"""

from recsys_assets.io_managers.documents import Document, DocumentIOManager
from recsys_assets.io_managers.matrices import RatingMatrixIOManager
from recsys_assets.io_managers.ratings import RawRatings, RawRatingsIOManager, StoredRatings
from recsys_assets.io_managers.recordio import (
    LabelledRows,
    RecordIOManager,
    StoredRecordIO,
)
from recsys_assets.io_managers.tables import ParquetFolder, ParquetIOManager

__all__ = [
    "Document",
    "DocumentIOManager",
    "LabelledRows",
    "ParquetFolder",
    "ParquetIOManager",
    "RatingMatrixIOManager",
    "RawRatings",
    "RawRatingsIOManager",
    "RecordIOManager",
    "StoredRatings",
    "StoredRecordIO",
]
