"""Batch transform jobs: their record, and the run that feeds a model's server from S3.

A run starts the model's serving program, posts each input object to it in payloads
(``splitting``) and writes the assembled answers beside each other in S3.
"""

import contextlib
import http.client
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from recsys_assets.sagemaker_local.jobs import splitting
from recsys_assets.sagemaker_local.jobs.archives import unpack
from recsys_assets.sagemaker_local.jobs.container import Container, ContainerFolder
from recsys_assets.sagemaker_local.jobs.run import JobFailed, Run
from recsys_assets.sagemaker_local.s3 import S3Uri, no_objects
from recsys_assets.sagemaker_local.store import TRANSFORM_JOB, Description

DEFAULT_MAX_PAYLOAD_MB = 6
"""Megabytes (of 1,048,576 bytes) that a payload may have when a request does not say."""

_STARTUP_SECONDS = 300.0
"""How long a server may take to answer its first ping, for a model that loads slowly."""


def new_transform_job(request: Mapping[str, Any], container: Mapping[str, Any]) -> Description:
    """Return the record of a transform job that waits for its turn.

    Parameters
    ----------
    request
        A checked CreateTransformJob request.
    container
        The model's container definition, which the job keeps: a model may be deleted meanwhile.
    """
    job = {
        **request,
        "TransformJobArn": TRANSFORM_JOB.arn(request["TransformJobName"]),
        "TransformJobStatus": "InProgress",
        "TransformInput": {
            "CompressionType": "None",
            "SplitType": "None",
            **request["TransformInput"],
        },
        "TransformOutput": {"AssembleWith": "None", **request["TransformOutput"]},
        "DataProcessing": {
            "InputFilter": "$",
            "OutputFilter": "$",
            "JoinSource": "None",
            **request.get("DataProcessing", {}),
        },
        "ModelContainer": dict(container),
    }
    job.pop("Tags", None)
    return job


def request_stop(job: Description) -> None:
    """Note in a transform job's record that it is to stop; nothing if it is not in progress."""
    if job["TransformJobStatus"] == "InProgress":
        job["TransformJobStatus"] = "Stopping"


def note_interruption(job: Description) -> None:
    """Note in a transform job's record that its run was lost and that it waits for another."""
    job.pop("TransformStartTime", None)


def end(job: Description, status: str, reason: str | None = None) -> None:
    """Write the end to a transform job's record, unless it has one.

    Parameters
    ----------
    job
        The record.
    status
        ``Completed``, ``Failed`` or ``Stopped``. A job that the client stopped meanwhile ends as
        ``Stopped`` unless it failed.
    reason
        The FailureReason of a failed job.
    """
    if job["TransformJobStatus"] not in ("InProgress", "Stopping"):
        return
    if job["TransformJobStatus"] == "Stopping" and status != "Failed":
        status = "Stopped"
    job["TransformJobStatus"] = status
    job["TransformEndTime"] = time.time()
    if reason is not None:
        job["FailureReason"] = reason


class TransformRun(Run):
    """One run of a transform job: a server and the requests to it."""

    kind = TRANSFORM_JOB
    log_group = "/aws/sagemaker/TransformJobs"

    _container: Container | None = None

    def stop(self) -> None:
        """Ask for an early end and cut off the request under way."""
        super().stop()
        self._end_server()

    def interrupt(self) -> None:
        """Ask for an end at once and cut off the request under way."""
        super().interrupt()
        self._end_server()

    def _do(self, folder: Path) -> None:
        with self.context.store.edit(TRANSFORM_JOB, self.name) as job:
            job["TransformStartTime"] = time.time()
        container_folder = ContainerFolder(folder / "ml")
        container_folder.create()
        self._fetch_model(job["ModelContainer"], folder / "model.tar.gz", container_folder.model)
        stream = self._open_log()
        port = _free_port()
        self._container = Container(
            self.context.images.program(job["ModelContainer"]["Image"]).serve,
            container_folder,
            _environment(job, port),
            lambda lines: self._log(stream, lines),
            self.context.lock,
        )
        try:
            server = _Server(port, job.get("ModelClientConfig", {}))
            self._await_server(server)
            self._transform(job, server, folder, stream)
        finally:
            self._end_server()
        self._end("Completed")

    def _end(self, status: str, reason: str | None = None) -> None:
        with self.context.store.edit(TRANSFORM_JOB, self.name) as job:
            end(job, status, reason)

    def _end_server(self) -> None:
        if self._container is not None:
            self._container.kill()

    def _fetch_model(self, definition: Mapping[str, Any], archive: Path, folder: Path) -> None:
        if "ModelDataUrl" not in definition:
            return
        source = S3Uri.parse(definition["ModelDataUrl"], "ModelDataUrl")
        try:
            self.context.objects.download(source, archive)
            unpack(archive, folder)
        except (BotoCoreError, ClientError, ValueError) as error:
            raise JobFailed(
                f"ClientError: Model data download failed: {source}: {error}"
            ) from error

    def _await_server(self, server: "_Server") -> None:
        deadline = time.monotonic() + _STARTUP_SECONDS
        while not server.answers_ping():
            self._check_server()
            if time.monotonic() > deadline:
                raise JobFailed(
                    "AlgorithmError: The model's container did not answer GET /ping with 200"
                    f" within {_STARTUP_SECONDS:g} seconds. See job logs for more information"
                )

    def _check_server(self) -> None:
        """Raise what has ended the server, if it has ended; else wait a moment."""
        assert self._container is not None  # noqa: S101 - started before it is asked anything
        status = self._container.wait(0.1)
        self._check()
        if status is not None:
            raise JobFailed(
                f"AlgorithmError: The model's container ended, exit code: {status}."
                " See job logs for more information"
            )

    def _transform(self, job: Description, server: "_Server", folder: Path, stream: int) -> None:
        prefix = S3Uri.parse(job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"], "S3Uri")
        target = S3Uri.parse(job["TransformOutput"]["S3OutputPath"], "S3OutputPath")
        failures: list[str] = []
        count = 0
        try:
            for key in self.context.objects.keys(prefix):
                self._check()
                count += 1
                source = S3Uri(prefix.bucket, key)
                answers = folder / "answers"
                try:
                    self.context.objects.download(source, folder / "input")
                    self._transform_object(job, server, folder / "input", answers)
                except (_InvocationFailed, splitting.BadInput) as error:
                    # The other objects are still transformed, as on AWS.
                    failures.append(f"{source}: {error}")
                    self._log(stream, [f"[sagemaker logs]: {prefix.bucket}/{key}: {error}"])
                else:
                    self.context.objects.upload(
                        answers, target.child(f"{prefix.relative(key)}.out")
                    )
        except (BotoCoreError, ClientError) as error:
            raise JobFailed(f"ClientError: Data transfer failed: {error}") from error
        if count == 0:
            raise JobFailed(f"ClientError: {no_objects(prefix)}")
        if failures:
            raise JobFailed(
                f"ClientError: {failures[0]} ({len(failures)} of {count} input objects failed)."
                " See job logs for more information"
            )

    def _transform_object(
        self, job: Description, server: "_Server", source: Path, answers: Path
    ) -> None:
        given, wanted = job["TransformInput"], job["TransformOutput"]
        longest = job.get("MaxPayloadInMB", DEFAULT_MAX_PAYLOAD_MB) << 20
        headers = {}
        if "ContentType" in given:
            headers["Content-Type"] = given["ContentType"]
        if "Accept" in wanted:
            headers["Accept"] = wanted["Accept"]
        strategy = job.get("BatchStrategy", "MultiRecord")
        server.disconnect()  # it may have closed an idle connection
        with source.open("rb") as records, answers.open("wb") as output:
            pieces = splitting.split(records, given["SplitType"], longest)
            for payload in splitting.batch(pieces, strategy, longest):
                self._check()
                answer = self._invoke(server, payload, headers)
                output.write(answer)
                if wanted["AssembleWith"] == "Line" and not answer.endswith(b"\n"):
                    output.write(b"\n")

    def _invoke(self, server: "_Server", payload: bytes, headers: Mapping[str, str]) -> bytes:
        for attempts_left in range(server.max_retries, -1, -1):
            try:
                return server.invoke(payload, headers)
            except _InvocationFailed as error:
                self._check_server()
                if not error.retryable or not attempts_left:
                    raise
        raise AssertionError("the last attempt returns or raises")


class _InvocationFailed(Exception):  # noqa: N818 - as JobFailed
    """A payload was not answered with 200; ``retryable`` unless the payload is at fault."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class _Server:
    """The HTTP side of a serving program on a loopback port."""

    def __init__(self, port: int, client_config: Mapping[str, int]) -> None:
        self.max_retries = client_config.get("InvocationsMaxRetries", 3)
        timeout = client_config.get("InvocationsTimeoutInSeconds", 600)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def disconnect(self) -> None:
        """Close the connection; the next request opens a new one."""
        self._connection.close()

    def answers_ping(self) -> bool:
        """Return whether GET /ping is answered with 200."""
        try:
            status, _ = self._request("GET", "/ping", None, {})
        except (OSError, http.client.HTTPException):
            return False
        return status == http.client.OK

    def invoke(self, payload: bytes, headers: Mapping[str, str]) -> bytes:
        """Return the answer to POST /invocations.

        Raises
        ------
        _InvocationFailed
            When the answer is not 200 or there is none.
        """
        try:
            status, answer = self._request("POST", "/invocations", payload, headers)
        except (OSError, http.client.HTTPException) as error:
            raise _InvocationFailed(
                f"no answer from the model's container: {error!r}", retryable=True
            ) from error
        if status != http.client.OK:
            message = answer[:300].decode("utf-8", errors="replace")
            raise _InvocationFailed(
                f"Bad HTTP status received from algorithm: {status}: {message}",
                retryable=status >= http.client.INTERNAL_SERVER_ERROR,
            )
        return answer

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        try:
            self._connection.request(method, path, body, dict(headers))
            response = self._connection.getresponse()
            return response.status, response.read()
        except BaseException:
            self.disconnect()
            raise


def _environment(job: Description, port: int) -> dict[str, str]:
    strategies = {"MultiRecord": "MULTI_RECORD", "SingleRecord": "SINGLE_RECORD"}
    return {
        **job["ModelContainer"].get("Environment", {}),
        **job.get("Environment", {}),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_BATCH_STRATEGY": strategies[job.get("BatchStrategy", "MultiRecord")],
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(job.get("MaxPayloadInMB", DEFAULT_MAX_PAYLOAD_MB)),
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(job.get("MaxConcurrentTransforms", 1)),
    }


def _free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
    return port
