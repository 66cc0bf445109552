"""An object as it was seen in a landing.

What belongs here: what is known of it, and its form in run config. What does not: looking
(``listing.py``, ``events.py``) and what has been ingested
(``recsys_assets.domain.ratings.ledger``).
"""

import datetime as dt
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LandedObject:
    """One version of an object, or that there is none any more.

    Attributes
    ----------
    key
        The key within the bucket.
    etag
        Without quotes; empty where it has been deleted.
    last_modified
        By the store's clock, UTC. Of a deletion that no event told: of what was deleted.
    size
        In bytes.
    version_id, sequencer
        S3's id of the version and, from an event, its place among the key's events; None where
        there is none.
    generation
        Where neither tells versions apart: the how-manieth arrival under its key this is, as the
        ledger was when it was seen. The same content may come twice within a second.
    deleted
        The object is gone.
    """

    key: str
    etag: str
    last_modified: dt.datetime
    size: int
    version_id: str | None = None
    sequencer: str | None = None
    generation: int | None = None
    deleted: bool = False

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "LandedObject":
        """Read what :meth:`to_json` gives."""
        moment = dt.datetime.fromisoformat(content["last_modified"])
        return cls(**{**content, "last_modified": moment})

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, those that are there."""
        content = {**asdict(self), "last_modified": self.last_modified.isoformat()}
        return {
            name: value
            for name, value in content.items()
            if value is not None and value is not False
        }
