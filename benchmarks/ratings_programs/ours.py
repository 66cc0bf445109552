"""Our way from a file of ratings to RecordIO in S3: one stage of it, or all.

    python ours.py PART REVIEWS.tsv.gz FOLDER STAGES.json

What belongs here: calling what the assets call. What does not: choosing what is run and comparing
(``ratings_path.py``). A stage leaves files in FOLDER for the next one. PART is a stage's name;
``whole``, which is all stages in one process; or ``dagster``: Dagster materializes the assets,
which stores a version of every one of them in S3. The local services are those of the state folder
that RECSYS_STATE names.
"""

import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from stages import Stages

from recsys_assets.domain.features import RatingMatrix, build_rating_matrix
from recsys_assets.domain.ratings.filtering import SPLITS, FilterRules, filter_ratings
from recsys_assets.domain.ratings.reading import read_ratings
from recsys_assets.settings import Settings

STAGES = ("reading", "filtering", "matrix", "encoding", "uploading")
_DOMAIN_STAGES = STAGES[:3]  # they need nothing of Dagster, which takes seconds to import


class RatingsPath:
    """The stages, between which there are files, and the matrix where one process does both."""

    def __init__(self, source: Path, folder: Path) -> None:
        self._source = source
        self._raw = folder / "raw"
        self._filtered = folder / "filtered.parquet"
        self._recordio = folder / "recordio"
        self._matrix: RatingMatrix  # from `matrix` on
        self._resources: dict[str, Any] = {}

    @property
    def ratings(self) -> int:
        """How many have passed the filter, 0 before it."""
        return pq.read_metadata(self._filtered).num_rows if self._filtered.exists() else 0

    def prepare(self, part: str) -> None:
        """Do what is not measured: imports, and the matrix where another process has made it."""
        if part not in _DOMAIN_STAGES:
            from recsys_assets.definitions import build_resources

            self._resources = build_resources(Settings.from_environment())
        if part == "encoding":
            self.matrix()

    def reading(self) -> None:
        """From the source to Parquet: ratings and rejects."""
        read_ratings(self._source, self._raw)

    def filtering(self) -> None:
        """From the ratings to those that count, with indices and split."""
        filter_ratings(self._raw / "ratings.parquet", self._filtered, FilterRules())

    def matrix(self) -> None:
        """From the ratings to one-hot rows."""
        self._matrix = build_rating_matrix(self._filtered)

    def encoding(self) -> None:
        """From rows to RecordIO files."""
        from recsys_assets.assets.features import ProtobufTestConfig
        from recsys_assets.io_managers import LabelledRows

        matrix = self._matrix
        for split in SPLITS:
            rows_per_file = ProtobufTestConfig().rows_per_file if split == "test" else None
            rows = LabelledRows(
                matrix.features, matrix.labels, "", matrix.rows(split), rows_per_file
            )
            folder = self._recordio / split
            folder.mkdir(parents=True, exist_ok=True)
            self._resources["recordio_io_manager"].write(rows, folder)

    def uploading(self) -> None:
        """From files to S3."""
        for split in SPLITS:
            self._resources["store"].publish(
                f"protobuf_{split}", "benchmark", self._recordio / split, row_count=None, facts={}
            )

    def dagster(self) -> None:
        """From the source to S3, asset by asset."""
        from dagster import DagsterInstance, materialize

        from recsys_assets.assets import features, ratings

        materialize(
            [
                ratings.raw_ratings,
                ratings.filtered_ratings,
                features.sparse_matrix,
                features.protobuf_train,
                features.protobuf_validate,
                features.protobuf_test,
            ],
            run_config={"ops": {"raw_ratings": {"config": {"source": str(self._source)}}}},
            resources=self._resources,
            instance=DagsterInstance.ephemeral(),
        )


def main() -> None:
    """Run what the command line names."""
    part, source, folder, measured = sys.argv[1:]
    path = RatingsPath(Path(source), Path(folder))
    stages = Stages()
    path.prepare(part)
    for name in STAGES if part == "whole" else (part,):
        with stages.stage(name):
            getattr(path, name)()
    stages.write(Path(measured), ratings=path.ratings)


if __name__ == "__main__":
    main()
