"""The built-in's model artefact, without MXNet: ``model.tar.gz``, ``model_algo-1`` and inside.

What belongs here: the byte layout of a trained model, written and read. What does not: where
artefacts lie, and unpacking archives to disk: no path from an archive is ever used.

``model.tar.gz`` holds one file, ``model_algo-1``. That is a zip of ``symbol.json``, the network as
MXNet 1.x describes it, and ``params``, its arrays in MXNet's NDArray format, little-endian:

    uint64 0x112, uint64 0
    uint64 number of arrays, and each array:
        uint32 0xF993FAC9, int32 storage type (0 dense, 1 row-sparse), [stored shape], shape,
        int32 device type 1 (CPU), int32 device id 0, int32 dtype 0 (float32),
        [int32 dtype 6 (int64) and shape of the row indices], the values, [the row indices]
    uint64 number of names, and each name: uint64 length, the bytes

A shape is a uint32 number of dimensions and an int64 each; what stands in brackets is there for
row-sparse arrays alone, which are read but never written. The arrays are ``arg:w0_weight`` (1),
``arg:w1_weight`` (feature_dim, 1) and ``arg:v`` (feature_dim, num_factors).
``mxnet.module.Module.load`` opens the two files once they are renamed. Equal models give equal
bytes.

Sources: ``NDArray::Save`` in MXNet 1.x ``src/ndarray/ndarray.cc``, the JSON of its symbols, and
AWS's sample that reads the arrays of the built-in's artefact for nearest-neighbour search.
"""

import gzip
import json
import math
import os
import posixpath
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from recsys_assets.domain.factorization_machine.hyperparameters import PredictorType
from recsys_assets.domain.factorization_machine.model import FactorizationMachine

MODEL_FILE = "model_algo-1"
MAX_MODEL_BYTES = 8 << 30  # of parameters: 2 million features of 1000 factors

_SYMBOL, _PARAMS = "symbol.json", "params"
_W0, _W1, _V = "arg:w0_weight", "arg:w1_weight", "arg:v"
_MAX_OVERHEAD_BYTES = 1 << 20  # of everything beside the values of the parameters
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold

_LIST_MAGIC, _ARRAY_MAGIC = 0x112, 0xF993FAC9
_DENSE, _ROW_SPARSE = 0, 1
_CPU, _FLOAT32, _INT64 = 1, 0, 6
_BLOCK_BYTES = 1 << 22
_OUTPUTS: dict[PredictorType, str] = {
    "regressor": "LinearRegressionOutput",
    "binary_classifier": "LogisticRegressionOutput",
}

Floats = npt.NDArray[np.float32]


class ArtefactError(ValueError):
    """A file that is not a model of the built-in; the message says where it differs."""


def write_model(target: Path | IO[bytes], model: FactorizationMachine) -> None:
    """Write ``model_algo-1`` to a path or a seekable file.

    Its members are stored, not compressed: parameters hardly shrink, and stored bytes do not
    depend on the version of a compressor.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(_SYMBOL, _ZIP_EPOCH), _symbol(model))
        with archive.open(zipfile.ZipInfo(_PARAMS, _ZIP_EPOCH), "w", force_zip64=True) as file:
            _write_params(file, model)


def read_model(source: Path | IO[bytes], max_bytes: int = MAX_MODEL_BYTES) -> FactorizationMachine:
    """Read ``model_algo-1`` from a path or a seekable file.

    Parameters
    ----------
    source
        What to read.
    max_bytes
        Refuse a model whose parameters take more memory.

    Raises
    ------
    ArtefactError
        If this is no model of the built-in, or is damaged, or is larger than `max_bytes`. Sizes
        are checked before memory is taken for them.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            symbol = archive.getinfo(_SYMBOL)
            params = archive.getinfo(_PARAMS)
            _check_size(_SYMBOL, symbol.file_size, _MAX_OVERHEAD_BYTES)
            _check_size(_PARAMS, params.file_size, max_bytes + _MAX_OVERHEAD_BYTES)
            predictor_type = _predictor_type(archive.read(symbol))
            with archive.open(params) as file:
                arrays = _ParamsReader(file, params.file_size, max_bytes).read()
    except KeyError as error:
        raise ArtefactError(f"{MODEL_FILE}: {error.args[0]}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ArtefactError(f"{MODEL_FILE}: not a readable zip: {error}") from None
    return _model(predictor_type, arrays)


def write_model_archive(path: Path, model: FactorizationMachine) -> None:
    """Write ``model.tar.gz``."""
    with TemporaryFile() as inner, path.open("wb") as outer:
        write_model(inner, model)
        member = tarfile.TarInfo(MODEL_FILE)  # its time, owner and mode are constants
        member.size = inner.seek(0, os.SEEK_END)
        inner.seek(0)
        with (
            gzip.GzipFile(
                filename="", mode="wb", compresslevel=1, fileobj=outer, mtime=0
            ) as zipped,
            tarfile.open(fileobj=zipped, mode="w") as archive,
        ):
            archive.addfile(member, inner)


def read_model_archive(path: Path, max_bytes: int = MAX_MODEL_BYTES) -> FactorizationMachine:
    """Read ``model.tar.gz``; parameters and errors are those of :func:`read_model`."""
    try:
        with tarfile.open(path, "r|gz") as archive, TemporaryFile() as inner:
            for member in archive:
                if posixpath.normpath(member.name) == MODEL_FILE and member.isreg():
                    _check_size(MODEL_FILE, member.size, max_bytes + 2 * _MAX_OVERHEAD_BYTES)
                    shutil.copyfileobj(cast("IO[bytes]", archive.extractfile(member)), inner)
                    return read_model(inner, max_bytes)
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise ArtefactError(f"{path.name}: not a readable tar.gz: {error}") from None
    raise ArtefactError(f"{path.name}: expected a file {MODEL_FILE!r}, found none")


def _check_size(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise ArtefactError(f"{name}: expected at most {limit} bytes, found {size}")


# --------------------------------------------------------------------------------------- symbol


def _symbol(model: FactorizationMachine) -> bytes:
    """Describe the model equation as an MXNet network over sparse ``data`` and ``out_label``."""
    nodes: list[dict[str, Any]] = []

    def node(op: str, name: str, *inputs: int, **attributes: str) -> int:
        attrs = {"attrs": attributes} if attributes else {}
        nodes.append({"op": op, "name": name, **attrs, "inputs": [[i, 0, 0] for i in inputs]})
        return len(nodes) - 1

    def variable(name: str, **attributes: str) -> int:
        return node("null", name, **attributes)

    n, k = model.factors.shape
    along_factors = {"axis": "1", "keepdims": "True"}
    data = variable("data", __storage_type__="2")  # csr
    w0 = variable("w0_weight", __shape__="(1,)")
    w1 = variable("w1_weight", __shape__=f"({n}, 1)")
    v = variable("v", __shape__=f"({n}, {k})")
    linear = node("dot", "linear", data, w1)
    sums = node("square", "squared_sums", node("dot", "sums", data, v))
    of_sums = node("sum", "total_of_squared_sums", sums, **along_factors)
    norms = node("sum", "squared_norms", node("square", "squared_v", v), **along_factors)
    of_norms = node("dot", "total_of_squares", node("square", "squared_data", data), norms)
    pairs = node("elemwise_sub", "pairs", of_sums, of_norms)
    half = node("_mul_scalar", "interactions", pairs, scalar="0.5")
    score = node("broadcast_add", "score", node("elemwise_add", "without_bias", linear, half), w0)
    out = node(_OUTPUTS[model.predictor_type], "out", score, variable("out_label"))
    return json.dumps(
        {
            "nodes": nodes,
            "arg_nodes": [i for i, entry in enumerate(nodes) if entry["op"] == "null"],
            "node_row_ptr": list(range(len(nodes) + 1)),
            "heads": [[out, 0, 0]],
            "attrs": {"mxnet_version": ["int", 10100]},
        },
        indent=2,
    ).encode()


def _predictor_type(symbol: bytes) -> PredictorType:
    """Tell from its network what a model predicts."""
    try:
        ops = {node["op"] for node in json.loads(symbol)["nodes"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{_SYMBOL}: not an MXNet symbol: {error!r}") from None
    for predictor_type, op in _OUTPUTS.items():
        if op in ops:
            return predictor_type
    raise ArtefactError(f"{_SYMBOL}: expected an output among {sorted(_OUTPUTS.values())}")


# --------------------------------------------------------------------------------------- params


def _write_params(file: IO[bytes], model: FactorizationMachine) -> None:
    arrays = {
        _W0: np.array([model.bias], dtype=np.float32),
        _W1: model.linear.reshape(-1, 1),
        _V: model.factors,
    }
    file.write(struct.pack("<QQQ", _LIST_MAGIC, 0, len(arrays)))
    for array in arrays.values():
        file.write(struct.pack("<IiI", _ARRAY_MAGIC, _DENSE, array.ndim))
        file.write(struct.pack(f"<{array.ndim}q", *array.shape))
        file.write(struct.pack("<iii", _CPU, 0, _FLOAT32))
        rows = max(1, _BLOCK_BYTES // (4 * array.shape[-1]))
        for first in range(0, len(array), rows):
            file.write(array[first : first + rows].astype("<f4").tobytes())
    file.write(struct.pack("<Q", len(arrays)))
    for name in arrays:
        file.write(struct.pack("<Q", len(name)) + name.encode())


class _ParamsReader:
    """Reads MXNet's NDArray format from a file of `size` bytes, never asking for more than that."""

    def __init__(self, file: IO[bytes], size: int, max_bytes: int) -> None:
        self._file = file
        self._left = size
        self._allowed = max_bytes

    def read(self) -> dict[str, Floats]:
        magic, _, count = self._unpack("<QQQ")
        if magic != _LIST_MAGIC:
            raise ArtefactError(f"{_PARAMS}: expected MXNet's magic number, found {magic:#x}")
        if count != 3:
            raise ArtefactError(f"{_PARAMS}: expected 3 arrays, found {count}")
        arrays = [self._array() for _ in range(count)]
        (names,) = self._unpack("<Q")
        if names != count:
            raise ArtefactError(f"{_PARAMS}: expected {count} names, found {names}")
        named = {self._name(): array for array in arrays}
        if self._left or self._file.read(1):  # reading on to the end makes zipfile check its CRC
            raise ArtefactError(f"{_PARAMS}: {self._left} bytes too many")
        return named

    def _array(self) -> Floats:
        magic, storage = self._unpack("<Ii")
        if magic != _ARRAY_MAGIC or storage not in (_DENSE, _ROW_SPARSE):
            raise ArtefactError(
                f"{_PARAMS}: expected a dense or row-sparse array, found magic {magic:#x} and "
                f"storage type {storage}"
            )
        stored_shape = self._shape() if storage == _ROW_SPARSE else None
        shape = self._shape()
        _, _, dtype = self._unpack("<iii")
        if dtype != _FLOAT32:
            raise ArtefactError(f"{_PARAMS}: expected float32 (dtype 0), found dtype {dtype}")
        if stored_shape is None:
            return self._values(shape, "<f4")

        (index_dtype,) = self._unpack("<i")
        index_shape = self._shape()
        if (
            index_dtype != _INT64
            or index_shape != stored_shape[:1]
            or stored_shape[1:] != shape[1:]
        ):
            raise ArtefactError(
                f"{_PARAMS}: rows {stored_shape} with indices {index_shape} do not make {shape}"
            )
        values = self._values(stored_shape, "<f4")
        rows = self._values(index_shape, "<i8")
        if len(rows) and not 0 <= rows.min() <= rows.max() < shape[0]:
            raise ArtefactError(f"{_PARAMS}: row indices lie outside {shape}")
        array = np.zeros(self._allow(shape, 4), dtype=np.float32)
        array[rows] = values
        return array

    def _name(self) -> str:
        (length,) = self._unpack("<Q")
        return self._take(length).decode("utf-8", errors="replace")

    def _shape(self) -> tuple[int, ...]:
        (dimensions,) = self._unpack("<I")
        if not 1 <= dimensions <= 2:
            raise ArtefactError(f"{_PARAMS}: expected 1 or 2 dimensions, found {dimensions}")
        shape = self._unpack(f"<{dimensions}q")
        if min(shape) < 0:
            raise ArtefactError(f"{_PARAMS}: a negative size in the shape {shape}")
        return shape

    def _values(self, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
        itemsize = np.dtype(dtype).itemsize
        if math.prod(shape) * itemsize > self._left:
            raise self._cut()
        array = np.empty(self._allow(shape, itemsize), dtype=dtype)
        flat = array.reshape(-1)
        step = _BLOCK_BYTES // itemsize
        for first in range(0, len(flat), step):
            part = flat[first : first + step]
            part[:] = np.frombuffer(self._take(part.nbytes), dtype=dtype)
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def _allow(self, shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
        """Return `shape` if there may still be an array of it."""
        self._allowed -= math.prod(shape) * itemsize
        if self._allowed < 0:
            raise ArtefactError(f"{_PARAMS}: an array of shape {shape} is larger than allowed")
        return shape

    def _unpack(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))

    def _take(self, size: int) -> bytes:
        if size > self._left:
            raise self._cut()
        taken = self._file.read(size)
        if len(taken) < size:
            raise self._cut()
        self._left -= size
        return taken

    def _cut(self) -> ArtefactError:
        return ArtefactError(
            f"{_PARAMS}: cut short, {self._left} bytes left where more must follow"
        )


def _model(predictor_type: PredictorType, arrays: dict[str, Floats]) -> FactorizationMachine:
    if set(arrays) != {_W0, _W1, _V}:
        raise ArtefactError(f"{_PARAMS}: expected {_W0}, {_W1} and {_V}, found {sorted(arrays)}")
    w0, w1, v = arrays[_W0], arrays[_W1], arrays[_V]
    if v.ndim != 2 or w0.shape != (1,) or w1.shape != (len(v), 1) or not v.size:
        raise ArtefactError(
            f"{_PARAMS}: expected shapes (1,), (n, 1) and (n, k), found {w0.shape}, {w1.shape} "
            f"and {v.shape}"
        )
    if not all(np.isfinite(array).all() for array in (w0, w1, v)):
        raise ArtefactError(f"{_PARAMS}: expected finite parameters")
    return FactorizationMachine(predictor_type, float(w0[0]), w1.reshape(-1), v)
