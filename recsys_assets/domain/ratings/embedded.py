"""The embedded engine, DuckDB, within bounds.

What belongs here: connecting to it. What does not: any query.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb


@contextmanager
def connected(memory_limit: str, spill: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Connect to a database of this process that lasts for the ``with`` block.

    Parameters
    ----------
    memory_limit
        What it may hold in memory, such as ``1GB``.
    spill
        Folder for what it holds beyond that; made when it is needed.
    """
    with duckdb.connect() as db:
        db.execute(f"SET memory_limit = '{memory_limit}'")
        db.execute("SET temp_directory = ?", [str(spill)])
        yield db
