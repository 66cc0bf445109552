"""The job's side of Dagster Pipes: what Dagster tells it, and what it tells Dagster.

What belongs here: as much of the protocol as one script needs, over files of any kind that Spark
reaches. What does not: what is told.

The library for this, dagster-pipes, needs Python 3.10, and boto3 for S3; EMR Serverless 7 has
neither. The protocol: https://docs.dagster.io/guides/build/external-pipelines. Dagster's clients
say where two things are, in the environment or as arguments (JSON, compressed with zlib, in
Base64): a JSON document, the context, to be read; and where messages, one JSON document each, are
to be written: numbered objects below a prefix in S3, or the end of a local file.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import traceback
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from pyspark.sql import SparkSession

_VERSION = "0.1"


class PipesSession:
    """A conversation with Dagster, from entering a ``with`` block to its end.

    Parameters
    ----------
    spark
        Reads and writes what is not a local file.

    Attributes
    ----------
    extras : Mapping
        What Dagster passes to the script.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        self._messages = _parameters("DAGSTER_PIPES_MESSAGES")
        self._written = 0
        context = json.loads(self._read(_parameters("DAGSTER_PIPES_CONTEXT")))
        self.extras: Mapping[str, Any] = context["extras"]

    def __enter__(self) -> PipesSession:
        self._tell("opened", {"extras": {}})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tell("closed", {} if error is None else {"exception": _as_json(error)})

    def report(self, payload: Any) -> None:
        """Send Dagster a JSON value, as a custom message."""
        self._tell("report_custom_message", {"payload": payload})

    def _tell(self, method: str, params: Mapping[str, Any]) -> None:
        message = {"__dagster_pipes_version": _VERSION, "method": method, "params": params}
        self._written += 1
        self._write(json.dumps(message))

    def _read(self, place: Mapping[str, Any]) -> str:
        if "path" in place:
            return Path(place["path"]).read_text(encoding="utf-8")
        uri = f"s3://{place['bucket']}/{place['key']}"
        text: str = self._spark.read.text(uri, wholetext=True).collect()[0][0]
        return text

    def _write(self, line: str) -> None:
        if "path" in self._messages:
            with Path(self._messages["path"]).open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            return
        uri = f"s3://{self._messages['bucket']}/{self._messages['key_prefix']}/{self._written}.json"
        # What Spark writes itself is a folder; a single object takes the file system behind it.
        path = self._spark._jvm.org.apache.hadoop.fs.Path(uri)
        configuration = self._spark.sparkContext._jsc.hadoopConfiguration()
        stream = path.getFileSystem(configuration).create(path, False)
        stream.write(bytearray(line, "utf-8"))
        stream.close()


def _parameters(name: str) -> Mapping[str, Any]:
    """Return what a Pipes client has put into the environment (EMR) or the arguments (Glue).

    Raises
    ------
    SystemExit
        If it is in neither: the script was not started by Dagster.
    """
    argument = "--" + name.lower().replace("_", "-")
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument(argument, dest="value", default=os.environ.get(name))
    value = parser.parse_known_args()[0].value
    if value is None:
        raise SystemExit(f"expected {name} in the environment or {argument}: Dagster starts this")
    found: Mapping[str, Any] = json.loads(zlib.decompress(base64.b64decode(value)))
    return found


def _as_json(error: BaseException) -> dict[str, Any]:
    """Return an exception as the protocol has it."""
    return {
        "message": "".join(traceback.format_exception_only(type(error), error)),
        "stack": traceback.format_tb(error.__traceback__),
        "name": type(error).__name__,
        "cause": None,
        "context": None,
    }
