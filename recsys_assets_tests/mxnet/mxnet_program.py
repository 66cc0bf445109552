"""A program for MXNet's environment: predicting with a network, and saving arrays.

What belongs here: calls of MXNet. What does not: anything of this project, which that environment
does not have. Usage::

    mxnet_program.py predict MODEL_ALGO-1 RECORDS.npz SCORES.npy
    mxnet_program.py save ARRAYS.npz PARAMS
"""

import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import mxnet as mx
import numpy as np


def predict(artefact: Path, records: Path, scores: Path) -> None:
    """Load ``model_algo-1`` as AWS's samples do, and score CSR records."""
    with TemporaryDirectory() as name:
        with zipfile.ZipFile(artefact) as archive:
            archive.extractall(name)
        Path(name, "symbol.json").rename(Path(name, "m-symbol.json"))
        Path(name, "params").rename(Path(name, "m-0000.params"))
        module = mx.mod.Module.load(f"{name}/m", 0, False, label_names=["out_label"])
    with np.load(records) as csr:
        shape = tuple(csr["shape"].tolist())
        data = mx.nd.sparse.csr_matrix((csr["data"], csr["indices"], csr["indptr"]), shape=shape)
    module.bind(data_shapes=[("data", shape)], for_training=False)
    module.forward(mx.io.DataBatch([data]), is_train=False)
    np.save(scores, module.get_outputs()[0].asnumpy().reshape(-1))


def save(arrays: Path, params: Path) -> None:
    """Write arrays as MXNet saves a model's, the factors once dense and once row-sparse."""
    with np.load(arrays) as found:
        dense = {f"arg:{name}": mx.nd.array(found[name]) for name in found.files}
    mx.nd.save(str(params), dense)
    row_sparse = {**dense, "arg:v": dense["arg:v"].tostype("row_sparse")}
    mx.nd.waitall()  # its rows are counted once they are there
    mx.nd.save(f"{params}.row_sparse", row_sparse)


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    {"predict": predict, "save": save}[command](*map(Path, paths))
