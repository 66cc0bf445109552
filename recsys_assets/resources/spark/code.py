"""The files that a Spark job is made of.

What belongs here: which files of the platform are sent to Spark, and packing them. What does not:
where they are put, and starting the job (``jobs.py``).
"""

import hashlib
import zipfile
from io import BytesIO
from pathlib import Path

import recsys_assets

_ROOT = Path(recsys_assets.__file__).parent
SCRIPT = _ROOT / "spark" / "filter_ratings.py"
"""What is submitted."""

_MODULES = (
    "__init__.py",
    "domain/__init__.py",
    "domain/ratings/__init__.py",
    "domain/ratings/transformation.py",
    "spark/__init__.py",
    "spark/pipes_session.py",
)
_WHEN = (1980, 1, 1, 0, 0, 0)  # the same bytes whenever it is packed


def packed_modules() -> bytes:
    """Return what the script imports of the platform, as a zip file for Spark's ``--py-files``."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _MODULES:
            member = zipfile.ZipInfo(f"{_ROOT.name}/{name}", _WHEN)
            archive.writestr(member, (_ROOT / name).read_bytes(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def fingerprint(*contents: bytes) -> str:
    """Return a name for what some files contain: 32 hexadecimal digits of SHA-256."""
    together = hashlib.sha256()
    for content in contents:
        together.update(hashlib.sha256(content).digest())
    return together.hexdigest()[:32]
