"""IO managers through Dagster and a real object store: round trips, visibility, failures."""

import tracemalloc
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from dagster import (
    AssetsDefinition,
    ExecuteInProcessResult,
    Output,
    RetryPolicy,
    asset,
    materialize,
)
from scipy.sparse import csr_matrix

from recsys_assets.definitions import build_resources
from recsys_assets.domain.features import RatingMatrix, Vocabulary, build_rating_matrix
from recsys_assets.domain.ratings.filtering import FilterRules, filter_ratings
from recsys_assets.domain.recordio import read_recordio
from recsys_assets.io_managers import (
    Document,
    LabelledRows,
    ParquetFolder,
    ParquetIOManager,
    RatingMatrixIOManager,
    RawRatings,
    RawRatingsIOManager,
    RecordIOManager,
    StoredRecordIO,
)
from recsys_assets.resources.object_store import MissingObjectError, ObjectStore, Version
from recsys_assets.settings import Settings
from recsys_assets_tests.domain.literal_ratings import random_ratings, write_ratings


@pytest.fixture
def resources(settings: Settings, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The platform's resources, with a prefix of the test's own."""
    prefix = request.node.name.replace("[", "-").replace("]", "")
    return build_resources(Settings(**{**vars(settings), "prefix": prefix}))


@pytest.fixture
def store(resources: dict[str, Any]) -> Iterator[ObjectStore]:
    with resources["store"].process_config_and_initialize_cm() as initialised:
        yield initialised


def producer(value: Any, annotation: Any, io_manager_key: str) -> AssetsDefinition:
    @asset(name="made", io_manager_key=io_manager_key)
    def made() -> annotation:
        return value

    return made


def consumer(annotation: Any, into: list[Any]) -> AssetsDefinition:
    @asset(name="used", retry_policy=RetryPolicy(max_retries=2))
    def used(made: annotation) -> None:
        into.append(made)

    return used


def round_trip(
    value: Any, annotation: Any, wanted: Any, key: str, resources: dict[str, Any]
) -> tuple[Any, ExecuteInProcessResult]:
    received: list[Any] = []
    result = materialize(
        [producer(value, annotation, key), consumer(wanted, received)], resources=resources
    )
    return received[0], result


def metadata_of(result: ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node("made")
    return {name: value.value for name, value in event.metadata.items()}


def test_a_data_frame_comes_back_with_its_rows_and_schema_as_metadata(
    resources: dict[str, Any],
) -> None:
    frame = pd.DataFrame({"customer_id": ["a", "b"], "score": np.array([1, 2], np.float32)})
    loaded, result = round_trip(frame, pd.DataFrame, pd.DataFrame, "parquet_io_manager", resources)
    pd.testing.assert_frame_equal(loaded, frame)
    metadata = metadata_of(result)
    assert metadata["dagster/row_count"] == 2
    columns = {column.name: column.type for column in metadata["dagster/column_schema"].columns}
    assert columns == {"customer_id": "string", "score": "float"}
    assert metadata["dagster/uri"].startswith("s3://recsys/")
    assert metadata["dagster/uri"].endswith(f"/made/{result.run_id}/data/")


def test_a_folder_of_tables_comes_back_whole(resources: dict[str, Any]) -> None:
    folder = ParquetFolder()
    pd.DataFrame({"a": [1]}).to_parquet(folder.main)
    pd.DataFrame({"reason": ["x", "y"]}).to_parquet(folder.path / "rejects.parquet")
    loaded, _ = round_trip(folder, ParquetFolder, ParquetFolder, "parquet_io_manager", resources)
    assert loaded.rows() == 1
    assert loaded.rows("rejects.parquet") == 2


def test_a_rating_matrix_comes_back_with_its_id_maps(
    resources: dict[str, Any], tmp_path: Path
) -> None:
    write_ratings(tmp_path / "ratings", random_ratings())
    filter_ratings(tmp_path / "ratings", tmp_path / "filtered", FilterRules(2, 2))
    matrix = build_rating_matrix(tmp_path / "filtered")
    loaded, _ = round_trip(matrix, RatingMatrix, RatingMatrix, "matrix_io_manager", resources)
    assert loaded.fingerprint() == matrix.fingerprint()
    assert loaded.split_rows == matrix.split_rows
    assert loaded.videos.titles.equals(matrix.videos.titles)
    assert (loaded.features != matrix.features).nnz == 0


def test_recordio_is_cut_in_files_and_read_as_a_reference(
    resources: dict[str, Any], store: ObjectStore, tmp_path: Path
) -> None:
    features = csr_matrix(np.eye(25, dtype=np.float32))
    rows = LabelledRows(features, np.arange(25, dtype=np.float32), "f1", rows_per_file=10)
    stored, result = round_trip(
        rows, LabelledRows, StoredRecordIO, "recordio_io_manager", resources
    )
    assert stored.files == tuple(f"part-0000{n}.recordio" for n in range(3))
    assert (stored.rows, stored.feature_dim, stored.fingerprint) == (25, 25, "f1")
    assert metadata_of(result)["dagster/row_count"] == 25
    for name in stored.files:
        store.download(stored.uri + name, tmp_path / name)
    matrix, labels = read_recordio([tmp_path / name for name in stored.files])
    assert (matrix != features).nnz == 0
    assert labels is not None
    assert labels.tolist() == list(range(25))


def test_some_rows_of_a_matrix_are_written_alone(resources: dict[str, Any], tmp_path: Path) -> None:
    features = csr_matrix(np.eye(25, dtype=np.float32))
    labels = np.arange(25, dtype=np.float32)
    rows = LabelledRows(features, labels, "f1", slice(11, 20), rows_per_file=4)
    written = RecordIOManager(store=resources["store"]).write(rows, tmp_path)
    assert written.row_count == 9
    files = [read_recordio([path]) for path in sorted(tmp_path.iterdir())]
    assert [matrix.shape for matrix, _ in files] == [(4, 25), (4, 25), (1, 25)]
    assert [stars for _, found in files for stars in found] == [*range(11, 20)]
    assert [column for matrix, _ in files for column in matrix.indices] == [*range(11, 20)]


def test_no_rows_are_no_file(resources: dict[str, Any], tmp_path: Path) -> None:
    features, labels = csr_matrix((3, 2), dtype=np.float32), np.ones(3, dtype=np.float32)
    rows = LabelledRows(features, labels, "f1", slice(1, 1), rows_per_file=10)
    assert RecordIOManager(store=resources["store"]).write(rows, tmp_path).row_count == 0
    assert [*tmp_path.iterdir()] == []


def test_very_many_files_have_names_in_the_order_of_their_rows(
    resources: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[tuple[str, slice]] = []

    def note(path: Path, features: csr_matrix, labels: np.ndarray, rows: slice) -> None:
        named.append((path.name, rows))

    monkeypatch.setattr("recsys_assets.io_managers.recordio.write_recordio", note)
    count = 100_001
    features = csr_matrix((count, 2), dtype=np.float32)
    value = LabelledRows(features, np.ones(count, dtype=np.float32), "f1", rows_per_file=1)
    RecordIOManager(store=resources["store"]).write(value, tmp_path)
    assert named == sorted(named, key=lambda item: item[0])
    assert [rows for _, rows in named] == [slice(row, row + 1) for row in range(count)]


def test_loading_a_matrix_holds_it_once(
    resources: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 400_000
    columns = np.tile(np.array([0, 2], dtype=np.int32), count)
    starts = np.arange(0, 2 * count + 1, 2, dtype=np.int32)
    ones = np.ones(2 * count, dtype=np.float32)
    ids = Vocabulary(pa.array(["a", "b"]), pa.array([None, "B"]))
    matrix = RatingMatrix(
        csr_matrix((ones, columns, starts), shape=(count, 4), copy=False),
        np.ones(count, dtype=np.float32),
        {"train": count, "validate": 0, "test": 0},
        ids,
        ids,
    )
    manager = RatingMatrixIOManager(store=resources["store"])
    facts = manager.write(matrix, tmp_path).facts
    version = Version("m", "r", "s3://b/m/r/", (), "", count, dict(facts))
    monkeypatch.setattr(RatingMatrixIOManager, "fetched", lambda *_: nullcontext(tmp_path))
    tracemalloc.start()
    try:
        loaded = manager.load(version, RatingMatrix)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert loaded.fingerprint() == matrix.fingerprint()
    arrays = (columns, ones, starts, matrix.labels)
    assert peak < 1.2 * sum(array.nbytes for array in arrays)


def test_files_are_linked_and_not_copied(resources: dict[str, Any], tmp_path: Path) -> None:
    tables = ParquetFolder()
    pd.DataFrame({"a": [1]}).to_parquet(tables.main)
    ParquetIOManager(store=resources["store"]).write(tables, tmp_path)
    assert (tmp_path / "data.parquet").samefile(tables.main)

    ratings = RawRatings()
    write_ratings(ratings.file("ratings", "source"), random_ratings())
    RawRatingsIOManager(store=resources["store"]).write(ratings, tmp_path)
    stored = tmp_path / "ratings" / "source.parquet"
    assert stored.samefile(ratings.file("ratings", "source"))


def test_a_document_comes_back_and_its_files_lie_beside_it(
    resources: dict[str, Any], store: ObjectStore
) -> None:
    document = Document({"rmse": 0.9}, files={"plot.png": b"png"})
    loaded, result = round_trip(document, Document, Document, "document_io_manager", resources)
    assert loaded.content == {"rmse": 0.9}
    uri = metadata_of(result)["dagster/uri"]
    assert [name.removeprefix(uri) for name in store.list(uri)] == ["document.json", "plot.png"]


def test_a_run_reads_its_own_version_though_another_has_become_current(
    resources: dict[str, Any], store: ObjectStore, tmp_path: Path
) -> None:
    received: list[Any] = []

    @asset(io_manager_key="document_io_manager")
    def made() -> Document:
        return Document({"by": "this run"})

    @asset(deps=[made])
    def meanwhile() -> None:
        store.publish("made", "another-run", tmp_path, row_count=None, facts={"content": {}})

    @asset(deps=[meanwhile])
    def used(made: Document) -> None:
        received.append(made.content)

    result = materialize([made, meanwhile, used], resources=resources)
    assert received == [{"by": "this run"}]
    assert store.require("made").run_id == "another-run"
    assert store.require("made", [result.run_id]).run_id == result.run_id


def test_a_missing_input_is_a_permanent_failure_that_names_the_key(
    resources: dict[str, Any],
) -> None:
    result = materialize(
        [producer(Document({}), Document, "document_io_manager"), consumer(Document, [])],
        resources=resources,
        selection="used",
        raise_on_error=False,
    )
    failure = result.failure_data_for_node("used").user_failure_data
    assert failure is not None
    assert "made has not been materialized: there is no s3://recsys/" in failure.description
    assert "/made/current.json. Materialize made first." in failure.description
    assert [e.event_type_value for e in result.all_node_events].count("STEP_START") == 1


def test_a_changed_object_is_a_permanent_failure_that_names_it(
    resources: dict[str, Any], store: ObjectStore
) -> None:
    frame = pd.DataFrame({"a": [1, 2, 3]})
    _, result = round_trip(frame, pd.DataFrame, pd.DataFrame, "parquet_io_manager", resources)
    uri = metadata_of(result)["dagster/uri"] + "data.parquet"
    store.client.put_object(Bucket="recsys", Key=uri.split("/", 3)[3], Body=b"truncated")
    with pytest.raises(MissingObjectError, match="is not what was written: expected") as caught:
        round_trip_of_current(resources)
    assert uri in str(caught.value.description)


def round_trip_of_current(resources: dict[str, Any]) -> None:
    materialize(
        [
            producer(None, pd.DataFrame, "parquet_io_manager"),
            consumer(pd.DataFrame, []),
        ],
        resources=resources,
        selection="used",
    )


def test_an_upload_that_breaks_off_leaves_the_last_good_version_current(
    resources: dict[str, Any], store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.DataFrame({"a": [1]})
    _, first = round_trip(frame, pd.DataFrame, pd.DataFrame, "parquet_io_manager", resources)

    @asset(name="made", io_manager_key="parquet_io_manager")
    def broken() -> Output[ParquetFolder]:
        folder = ParquetFolder()
        frame.to_parquet(folder.main)
        (folder.path / "rejects.parquet").symlink_to("/nowhere")
        return Output(folder)

    result = materialize([broken], resources=resources, raise_on_error=False)
    assert not result.success
    assert store.require("made").run_id == first.run_id


def test_equal_content_has_an_equal_hash_in_every_run(resources: dict[str, Any]) -> None:
    hashes = set()
    for _ in range(2):
        frame = pd.DataFrame({"a": [1, 2]})
        _, result = round_trip(frame, pd.DataFrame, pd.DataFrame, "parquet_io_manager", resources)
        hashes.add(metadata_of(result)["content_hash"])
    assert len(hashes) == 1
