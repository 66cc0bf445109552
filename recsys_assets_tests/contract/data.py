"""The data that every client works on, and what its results must be.

What belongs here: small ratings in S3 in the formats that jobs read, and the predictions of a
model that a client has made. What does not: clients.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, identity

from recsys_assets.domain.factorization_machine.artefact import read_model_archive
from recsys_assets.domain.factorization_machine.model import FactorizationMachine
from recsys_assets.domain.recordio import encode_recordio

CUSTOMERS, VIDEOS, ROWS, UNLABELLED_ROWS = 30, 20, 400, 40
MANY_ROWS = 20_000  # sent one by one, they take long enough to be stopped
FEATURE_DIM = CUSTOMERS + VIDEOS
_CHUNK = 25  # rows of the first of two files

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Data:
    """Ratings in a bucket.

    Attributes
    ----------
    s3
        A boto3 client.
    bucket
        Where they lie, below ``contract/``.
    """

    s3: Any
    bucket: str

    def put(self) -> None:
        """Write the objects that the client programs name."""
        rows = self.unlabelled
        objects = {
            "train/part-0.pbr": encode_recordio(*_ratings(0)),
            "test/part-0.pbr": encode_recordio(*self.test),
            "unlabelled/chunk-0.pbr": encode_recordio(rows[:_CHUNK]),
            "unlabelled/chunk-1.pbr": encode_recordio(rows[_CHUNK:]),
            "many/part-0.pbr": encode_recordio(_ratings(3, MANY_ROWS)[0]),
            "lines/rows.jsonl": "".join(map(_json_line, rows)).encode(),
        }
        for key, content in objects.items():
            self.s3.put_object(Bucket=self.bucket, Key=f"contract/{key}", Body=content)

    @cached_property
    def test(self) -> tuple[csr_matrix, Floats]:
        """The rows and labels of the test channel."""
        return _ratings(1)

    @cached_property
    def unlabelled(self) -> csr_matrix:
        """The rows that models score."""
        return _ratings(2)[0][:UNLABELLED_ROWS]

    def check(self, evidence: Mapping[str, Any]) -> None:
        """Compare what a case has seen with what its model says.

        Parameters
        ----------
        evidence
            ``model``, the URI of an artefact, and what a service has told of it: ``test_rmse`` on
            the test channel, ``scores`` of the unlabelled rows, ``unit_scores`` of unit vectors.

        Raises
        ------
        AssertionError
            Where the two differ.
        """
        model = self._model(evidence["model"])
        if "test_rmse" in evidence:
            X, y = self.test
            rmse = np.sqrt(np.mean((model.predict(X) - y) ** 2))
            np.testing.assert_allclose(evidence["test_rmse"], rmse, rtol=1e-5)
        for name, X in (
            ("scores", self.unlabelled),
            ("unit_scores", identity(FEATURE_DIM, dtype=np.float32, format="csr")),
        ):
            if name in evidence:
                np.testing.assert_allclose(evidence[name], model.predict(X), rtol=1e-5)

    def _model(self, uri: str) -> FactorizationMachine:
        with TemporaryDirectory() as folder:
            path = Path(folder, "model.tar.gz")
            key = uri.removeprefix(f"s3://{self.bucket}/")
            self.s3.download_file(self.bucket, key, str(path))
            return read_model_archive(path)


def _ratings(seed: int, rows: int = ROWS) -> tuple[csr_matrix, Floats]:
    """Return one-hot customers and videos, and stars that depend on the video."""
    generator = np.random.default_rng(seed)
    customers = generator.integers(CUSTOMERS, size=rows)
    videos = generator.integers(VIDEOS, size=rows)
    columns = np.stack([customers, CUSTOMERS + videos], axis=1).ravel()
    values = np.ones(2 * rows, dtype=np.float32)
    X = csr_matrix((values, columns, np.arange(0, 2 * rows + 1, 2)), shape=(rows, FEATURE_DIM))
    return X, (1 + videos % 5).astype(np.float32)


def _json_line(row: csr_matrix) -> str:
    features = {
        "keys": row.indices.tolist(),
        "shape": [FEATURE_DIM],
        "values": row.data.tolist(),
    }
    return json.dumps({"data": {"features": features}}) + "\n"
