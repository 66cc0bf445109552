"""The artefact: golden bytes of MXNet, round trips, and files that are not to be trusted."""

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recsys_assets.domain.factorization_machine.artefact import (
    MODEL_FILE,
    ArtefactError,
    read_model,
    read_model_archive,
    write_model,
    write_model_archive,
)
from recsys_assets.domain.factorization_machine.model import FactorizationMachine

MODEL = FactorizationMachine(
    "regressor",
    0.5,
    np.array([1, 2, 3], dtype=np.float32),
    np.array([[1.5, -2], [0, 0], [3, 4]], dtype=np.float32),
)

# mx.nd.save of MXNet 1.9.1 wrote these: the same model, its v once dense and once row-sparse.
_HEAD = (
    "120100000000000000000000000000000300000000000000"
    "c9fa93f9000000000100000001000000000000000100000000000000000000000000003f"
    "c9fa93f900000000020000000300000000000000010000000000000001000000000000000000000000"
    "00803f0000004000004040"
)
_NAMES = (
    "0300000000000000"
    "0d000000000000006172673a77305f776569676874"
    "0d000000000000006172673a77315f776569676874"
    "05000000000000006172673a76"
)
DENSE = bytes.fromhex(
    _HEAD
    + "c9fa93f9000000000200000003000000000000000200000000000000010000000000000000000000"
    + "0000c03f000000c000000000000000000000404000008040"
    + _NAMES
)
ROW_SPARSE = bytes.fromhex(
    _HEAD
    + "c9fa93f9010000000200000002000000000000000200000000000000020000000300000000000000"
    + "0200000000000000010000000000000000000000060000000100000002000000000000000000c03f"
    + "000000c0000040400000804000000000000000000200000000000000"
    + _NAMES
)


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("symbol", "symbol.json"), content)
    return path


@pytest.fixture
def symbol(tmp_path: Path) -> bytes:
    write_model(tmp_path / "sample", MODEL)
    return members(tmp_path / "sample")["symbol.json"]


def assert_same(model: FactorizationMachine, expected: FactorizationMachine) -> None:
    assert model.predictor_type == expected.predictor_type
    assert model.bias == expected.bias
    np.testing.assert_array_equal(model.linear, expected.linear)
    np.testing.assert_array_equal(model.factors, expected.factors)


def test_the_params_are_byte_for_byte_those_of_mxnet(tmp_path: Path) -> None:
    write_model(tmp_path / MODEL_FILE, MODEL)
    written = members(tmp_path / MODEL_FILE)
    assert list(written) == ["symbol.json", "params"]
    assert written["params"] == DENSE


@pytest.mark.parametrize("params", [DENSE, ROW_SPARSE], ids=["dense", "row-sparse"])
def test_params_that_mxnet_wrote_are_read(tmp_path: Path, symbol: bytes, params: bytes) -> None:
    assert_same(read_model(zipped(tmp_path / "m", symbol=symbol, params=params)), MODEL)


@pytest.mark.parametrize("predictor_type", ["regressor", "binary_classifier"])
def test_a_model_survives_both_levels(tmp_path: Path, predictor_type: str) -> None:
    generator = np.random.default_rng(0)
    model = FactorizationMachine(
        predictor_type,
        float(np.float32(0.1)),
        generator.normal(size=70_001).astype(np.float32),
        generator.normal(size=(70_001, 5)).astype(np.float32),
    )
    write_model(tmp_path / MODEL_FILE, model)
    assert_same(read_model(tmp_path / MODEL_FILE), model)
    write_model_archive(tmp_path / "model.tar.gz", model)
    assert_same(read_model_archive(tmp_path / "model.tar.gz"), model)


def test_the_archive_holds_one_file_of_the_built_ins_name(tmp_path: Path) -> None:
    write_model_archive(tmp_path / "model.tar.gz", MODEL)
    with tarfile.open(tmp_path / "model.tar.gz") as archive:
        assert archive.getnames() == ["model_algo-1"]


@pytest.mark.parametrize("write", [write_model, write_model_archive])
def test_equal_models_give_equal_bytes(
    tmp_path: Path, write: Callable[[Path, FactorizationMachine], None]
) -> None:
    for name in ("first", "second"):
        write(tmp_path / name, MODEL)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_no_time_of_writing_stands_in_an_artefact(tmp_path: Path) -> None:
    write_model(tmp_path / MODEL_FILE, MODEL)
    with zipfile.ZipFile(tmp_path / MODEL_FILE) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    write_model_archive(tmp_path / "model.tar.gz", MODEL)
    assert (tmp_path / "model.tar.gz").read_bytes()[4:8] == bytes(4)
    with tarfile.open(tmp_path / "model.tar.gz") as archive:
        assert [member.mtime for member in archive] == [0]


def test_an_archive_made_by_tar_itself_is_read(tmp_path: Path) -> None:
    write_model(tmp_path / MODEL_FILE, MODEL)
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(tmp_path, arcname=".", filter=lambda info: info if info.isdir() else None)
        archive.add(tmp_path / MODEL_FILE, arcname=f"./{MODEL_FILE}")
    assert_same(read_model_archive(tmp_path / "model.tar.gz"), MODEL)


def test_paths_and_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    write_model(tmp_path / "real", MODEL)
    content = (tmp_path / "real").read_bytes()
    link = tarfile.TarInfo(MODEL_FILE)
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "real")
    outside = tarfile.TarInfo(f"../{MODEL_FILE}")
    outside.size = len(content)
    with tarfile.open(tmp_path / "folder.tar.gz", "w:gz") as archive:
        archive.addfile(link)
        archive.addfile(outside, io.BytesIO(content))
    before = set(tmp_path.parent.iterdir())
    with pytest.raises(ArtefactError, match="expected a file 'model_algo-1', found none"):
        read_model_archive(tmp_path / "folder.tar.gz")
    assert set(tmp_path.parent.iterdir()) == before


@pytest.mark.parametrize("cut", range(0, len(DENSE), 5))
def test_params_that_are_cut_anywhere_are_an_artefact_error(
    tmp_path: Path, symbol: bytes, cut: int
) -> None:
    with pytest.raises(ArtefactError, match="params: cut short"):
        read_model(zipped(tmp_path / "m", symbol=symbol, params=DENSE[:cut]))


@pytest.mark.parametrize(
    ("offset", "layout", "value", "message"),
    [
        (0, "<Q", 0x113, "expected MXNet's magic number, found 0x113"),
        (16, "<Q", 2**60, f"expected 3 arrays, found {2**60}"),
        (24, "<I", 0xF993FAC8, "magic 0xf993fac8"),
        (28, "<i", 2, "storage type 2"),
        (32, "<I", 2**31, "expected 1 or 2 dimensions"),
        (36, "<q", 2**40, "cut short"),
        (36, "<q", -1, "a negative size"),
        (52, "<i", 1, "expected float32 .*found dtype 1"),
        (56, "<f", float("nan"), "expected finite parameters"),
        (len(DENSE) - 13, "<Q", 2**62, "cut short"),
        (len(DENSE) - 1, "<B", ord("w"), "expected arg:w0_weight, arg:w1_weight and arg:v"),
        (len(DENSE), "<B", 0, "1 bytes too many"),
    ],
)
def test_damaged_params_are_refused_before_memory_is_taken(
    tmp_path: Path, symbol: bytes, offset: int, layout: str, value: float, message: str
) -> None:
    damaged = bytearray(DENSE) + bytes(max(0, offset + 1 - len(DENSE)))
    struct.pack_into(layout, damaged, offset, value)
    with pytest.raises(ArtefactError, match=message):
        read_model(zipped(tmp_path / "m", symbol=symbol, params=bytes(damaged)))


def test_row_sparse_rows_outside_the_array_are_refused(tmp_path: Path, symbol: bytes) -> None:
    damaged = ROW_SPARSE.replace(struct.pack("<qq", 0, 2), struct.pack("<qq", 0, 3))
    with pytest.raises(ArtefactError, match="row indices lie outside"):
        read_model(zipped(tmp_path / "m", symbol=symbol, params=damaged))


def test_a_model_larger_than_allowed_is_refused(tmp_path: Path, symbol: bytes) -> None:
    write_model_archive(tmp_path / "model.tar.gz", MODEL)
    needed = 4 * (1 + 3 + 6)
    assert_same(read_model_archive(tmp_path / "model.tar.gz", max_bytes=needed), MODEL)
    with pytest.raises(ArtefactError, match="larger than allowed"):
        read_model_archive(tmp_path / "model.tar.gz", max_bytes=needed - 1)
    bomb = zipped(tmp_path / "bomb", symbol=symbol, params=bytes(3 << 20))
    with pytest.raises(ArtefactError, match="params: expected at most"):
        read_model(bomb, max_bytes=1 << 20)
    # a row-sparse array of one row can claim to be of any height
    tall = ROW_SPARSE.replace(struct.pack("<Iqq", 2, 3, 2), struct.pack("<Iqq", 2, 2**40, 2))
    with pytest.raises(ArtefactError, match="larger than allowed"):
        read_model(zipped(tmp_path / "tall", symbol=symbol, params=tall))


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    write_model(tmp_path / "m", MODEL)
    content = bytearray((tmp_path / "m").read_bytes())
    at = content.index(MODEL.factors.tobytes())
    content[at] ^= 1
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ArtefactError, match="not a readable zip: Bad CRC-32"):
        read_model(tmp_path / "m")


def test_files_of_another_kind_are_refused(tmp_path: Path, symbol: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"not a model")
    with pytest.raises(ArtefactError, match="not a readable zip"):
        read_model(path)
    with pytest.raises(ArtefactError, match=r"not a readable tar\.gz"):
        read_model_archive(path)
    path.write_bytes(gzip.compress(b"")[:-4])
    with pytest.raises(ArtefactError, match=r"not a readable tar\.gz"):
        read_model_archive(path)
    with pytest.raises(ArtefactError, match=r"no item named 'symbol\.json'"):
        read_model(zipped(path, params=DENSE))
    with pytest.raises(ArtefactError, match="not an MXNet symbol"):
        read_model(zipped(path, symbol=b"[]", params=DENSE))
    with pytest.raises(ArtefactError, match="expected an output among"):
        read_model(zipped(path, symbol=b'{"nodes": [{"op": "SoftmaxOutput"}]}', params=DENSE))
