"""Filtered ratings that an engine has written as several files.

What belongs here: making of them the one file that the rest of the platform reads. What does not:
the transformation that they come from (``transformation.py``), and its engines.
"""

from collections.abc import Sequence
from pathlib import Path

from recsys_assets.domain.ratings.embedded import connected


def join_parts(parts: Sequence[Path], joined: Path, *, memory_limit: str = "1GB") -> int:
    """Write the rows of Parquet files to one, in their order, without holding them.

    Parameters
    ----------
    parts
        Files of the same columns, at least one.
    joined
        Parquet file to write.
    memory_limit
        What the engine may hold in memory before it spills to disk beside `joined`.

    Returns
    -------
    int
        Number of rows.
    """
    with connected(memory_limit, joined.parent / "spill") as db:
        rows = db.read_parquet([str(part) for part in parts])
        rows.write_parquet(str(joined), compression="zstd")
        return int(db.read_parquet(str(joined)).count("*").fetchall()[0][0])
