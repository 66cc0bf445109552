"""Where the ledger of a landing lies: in the version of raw_ratings that was committed last.

What belongs here: finding and fetching it. What does not: what is in it
(``recsys_assets.domain.ratings.ledger``) and committing a new one (the IO manager of raw_ratings).
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from recsys_assets.domain.ratings.ledger import Ledger
from recsys_assets.resources.object_store import Head, ObjectStore, Version

RAW_RATINGS = "raw_ratings"
LEDGER = "sources.parquet"

# The ledger that was read last, by its SHA-256: a sensor looks often, and reads take seconds.
_last_read: dict[str, Ledger] = {}


def read_ledger(store: ObjectStore, landing_id: str) -> tuple[Head, Ledger]:
    """Return a landing's head and the ledger committed with it, an empty one before the first.

    The ledger is shared with other callers: who wants to change it makes a copy.
    """
    head = store.head(RAW_RATINGS, landing_id)
    return head, Ledger() if head.version is None else ledger_of(store, head.version)


def ledger_of(store: ObjectStore, version: Version) -> Ledger:
    """Return the ledger of a version of raw_ratings that grew out of a landing; not to be changed.

    Raises
    ------
    MissingObjectError
        If it is gone or not what was written.
    """
    (file,) = (file for file in version.files if file.name == LEDGER)
    ledger = _last_read.get(file.sha256)
    if ledger is None:
        with TemporaryDirectory(prefix="recsys-") as name:
            path = Path(name) / LEDGER
            store.fetch_file(version.asset, version.uri + LEDGER, file.sha256, path)
            ledger = Ledger.read(path)
        _last_read.clear()
        _last_read[file.sha256] = ledger
    return ledger
