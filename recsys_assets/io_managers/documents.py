"""JSON documents, with files that belong to them.

What belongs here: records and reports. What does not: tables and matrices.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recsys_assets.io_managers.base import VersionedIOManager, Written
from recsys_assets.resources.object_store import Version

_CONTENT = "document.json"


@dataclass(frozen=True)
class Document:
    """A JSON object and files beside it (name to bytes), such as plots.

    `inputs` is what it was made from, where that is not what its step has read.
    """

    content: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    inputs: dict[str, str] | None = None


class DocumentIOManager(VersionedIOManager):
    """Stores a Document; loads its content and leaves its files where they are."""

    def write(self, value: Document, folder: Path) -> Written:
        """Write ``document.json`` and the files."""
        for name, content in value.files.items():
            (folder / name).write_bytes(content)
        (folder / _CONTENT).write_text(json.dumps(value.content, indent=1, sort_keys=True))
        return Written(facts={"content": value.content}, inputs=value.inputs)

    def load(self, version: Version, wanted: type) -> Document:
        """Return the content, which the manifest holds too."""
        return Document(version.facts["content"])
