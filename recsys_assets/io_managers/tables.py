"""Tables as Parquet files.

What belongs here: data frames and folders of Parquet files. What does not: what is in them.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from dagster import TableColumn, TableSchema

from recsys_assets.io_managers.base import VersionedIOManager, Written
from recsys_assets.resources.object_store import Version

MAIN_TABLE = "data.parquet"


class ParquetFolder:
    """A temporary folder of Parquet files, one of them the main table.

    Files pass through it without being held in memory. It is deleted with the last reference.
    """

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="recsys-")

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self._folder.name)

    @property
    def main(self) -> Path:
        """The main table, ``data.parquet``."""
        return self.path / MAIN_TABLE

    def rows(self, name: str = MAIN_TABLE) -> int:
        """Return the number of rows of one of its tables."""
        return int(pq.ParquetFile(self.path / name).metadata.num_rows)


class ParquetIOManager(VersionedIOManager):
    """Stores a pandas DataFrame or a ParquetFolder; loads either, by the parameter's annotation."""

    def write(self, value: Any, folder: Path) -> Written:
        """Write the tables and tell the main one's rows and columns."""
        if isinstance(value, pd.DataFrame):
            table = pa.Table.from_pandas(value, preserve_index=False)
            pq.write_table(table.replace_schema_metadata(None), folder / MAIN_TABLE)
        elif isinstance(value, ParquetFolder):
            for path in sorted(value.path.glob("*.parquet")):
                os.link(path, folder / path.name)
        else:
            raise TypeError(f"expected a DataFrame or a ParquetFolder, got {type(value).__name__}")
        main = pq.ParquetFile(folder / MAIN_TABLE)
        columns = [TableColumn(column.name, str(column.type)) for column in main.schema_arrow]
        return Written(
            row_count=main.metadata.num_rows,
            schema=TableSchema(columns),
            facts={"schema": {column.name: column.type for column in columns}},
        )

    def load(self, version: Version, wanted: type) -> pd.DataFrame | ParquetFolder:
        """Return the main table as a DataFrame, or all tables as a ParquetFolder."""
        if wanted is ParquetFolder:
            tables = ParquetFolder()
            self.store.fetch(version, tables.path)
            return tables
        with self.fetched(version) as folder:
            return pd.read_parquet(folder / MAIN_TABLE)
