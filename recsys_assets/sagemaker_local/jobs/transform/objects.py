"""The input objects of a batch transform on their way through a model.

Each is fetched, cut into payloads (``splitting``), answered by the model's server, assembled and
stored; as many payloads as the job allows are under way at a time. The job's record and the
server's life are the business of ``job``.
"""

import collections
import gzip
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from recsys_assets.sagemaker_local.containers.model_server import InvocationFailed, ModelServer
from recsys_assets.sagemaker_local.jobs.run import JobFailed
from recsys_assets.sagemaker_local.jobs.transform import splitting
from recsys_assets.sagemaker_local.jobs.transform.data_processing import BadAnswer, DataProcessing
from recsys_assets.sagemaker_local.jobs.transform.execution_parameters import ExecutionParameters
from recsys_assets.sagemaker_local.jobs.transform.splitting import BadInput, Record
from recsys_assets.sagemaker_local.s3 import TRANSFER_ERRORS, ObjectStore, S3Uri, no_objects
from recsys_assets.sagemaker_local.store import Description

_DEFAULT_TIMEOUT_SECONDS = 600
_DEFAULT_RETRIES = 3

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


@dataclass
class _Object:
    """An input object, its files here and what is wrong with it, if anything."""

    source: S3Uri
    target: S3Uri
    input: Path
    output: Path
    failure: Exception | None = None


# What is under way of an object: the records of a payload, the file of one that is streamed, what
# makes it fail, or nothing more of it.
_Payload = list[Record] | Path | BadInput | None


class Transformation:
    """The work of one run of a transform job.

    Parameters
    ----------
    job
        The job's record.
    parameters
        How its server is asked.
    server
        A server that is ready.
    objects
        The S3-compatible store.
    folder
        An existing folder for files under way.
    check
        Called often; what it raises ends the work.
    log
        Keeps a line in the job's log.
    """

    def __init__(
        self,
        job: Description,
        parameters: ExecutionParameters,
        server: ModelServer,
        objects: ObjectStore,
        folder: Path,
        check: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        self._data = job["TransformInput"]["DataSource"]["S3DataSource"]
        self._input = job["TransformInput"]
        self._output = job["TransformOutput"]
        self._client = job.get("ModelClientConfig", {})
        self._processing = DataProcessing(job)
        self._parameters = parameters
        self._server = server
        self._objects = objects
        self._folder = folder
        self._check = check
        self._log = log

    def run(self) -> None:
        """Transform all objects.

        Raises
        ------
        JobFailed
            When there are none, or one could not be transformed, fetched or stored.
        """
        self._log(str(self._parameters))
        count = 0
        failed: list[_Object] = []
        concurrent = self._parameters.concurrent
        pool = ThreadPoolExecutor(concurrent, "transform")
        try:
            # Twice as many, for as many may be ends of objects, which keep no thread busy.
            for (item, payload), answer in _in_order(
                pool, self._answer, self._tasks(), 2 * concurrent
            ):
                if isinstance(answer, Exception):
                    item.failure = item.failure or answer
                elif payload is not None:
                    self._append(item, answer)
                else:
                    self._settle(item)
                    count += 1
                    failed += [item] if item.failure else []
        except TRANSFER_ERRORS as error:
            raise JobFailed(f"ClientError: Data transfer failed: {error}") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # the server's end ends what is sent
        if count == 0:
            raise JobFailed(f"ClientError: {no_objects(S3Uri.parse(self._data['S3Uri'], 'S3Uri'))}")
        if failed:
            raise JobFailed(
                f"ClientError: {failed[0].source}: {failed[0].failure}"
                f" ({len(failed)} of {count} input objects failed)."
                " See job logs for more information"
            )

    def _tasks(self) -> Iterator[tuple[_Object, _Payload]]:
        """Yield what is to be done: the payloads of each object, then None."""
        target = S3Uri.parse(self._output["S3OutputPath"], "S3OutputPath")
        for number, (name, source) in enumerate(self._sources()):
            self._check()
            files = self._folder / f"{number}.in", self._folder / f"{number}.out"
            item = _Object(source, target.child(f"{name}.out"), *files)
            try:
                self._fetch(item)
                for payload in self._payloads(item):
                    if item.failure is not None:
                        break
                    self._check()
                    yield item, payload
            except BadInput as error:
                yield item, error
            yield item, None

    def _sources(self) -> Iterator[tuple[str, S3Uri]]:
        try:
            yield from self._objects.sources(self._data)
        except ValueError as error:
            raise JobFailed(f"ClientError: {error}") from error

    def _fetch(self, item: _Object) -> None:
        self._objects.download(item.source, item.input)
        if self._input["CompressionType"] == "Gzip":
            packed = item.input.rename(item.input.with_suffix(".gz"))
            try:
                with gzip.open(packed) as content, item.input.open("wb") as file:
                    shutil.copyfileobj(content, file)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise BadInput(f"cannot decompress it: {error}") from error
            finally:
                packed.unlink()

    def _payloads(self, item: _Object) -> Iterator[_Payload]:
        if self._parameters.payload_mb == 0:
            yield item.input
            return
        strategy, longest = self._parameters.strategy, self._parameters.payload_mb << 20
        with item.input.open("rb") as content:
            records = splitting.split(content, self._input["SplitType"], strategy, longest)
            yield from splitting.batch(self._processing.prepare(records), strategy, longest)

    def _answer(self, task: tuple[_Object, _Payload]) -> bytes | Exception:
        """Return what is written for a payload, or what is wrong with it."""
        item, payload = task
        if isinstance(payload, BadInput):
            return payload
        if payload is None or item.failure is not None:
            return b""
        try:
            if isinstance(payload, Path):
                return self._processing.finish([], self._invoke(payload))
            body = b"".join(record.sent for record in payload)
            return self._processing.finish(payload, self._invoke(body))
        except (InvocationFailed, BadInput, BadAnswer) as error:
            return error

    def _invoke(self, body: bytes | Path) -> bytes:
        headers = {
            "Content-Type": self._input.get("ContentType"),
            "Accept": self._output.get("Accept"),
        }
        return self._server.invoke(
            body,
            {name: value for name, value in headers.items() if value is not None},
            timeout=self._client.get("InvocationsTimeoutInSeconds", _DEFAULT_TIMEOUT_SECONDS),
            retries=self._client.get("InvocationsMaxRetries", _DEFAULT_RETRIES),
            check=self._check,
        )

    def _append(self, item: _Object, answer: bytes) -> None:
        with item.output.open("ab") as file:
            file.write(answer)
            if self._output["AssembleWith"] == "Line" and not answer.endswith(b"\n"):
                file.write(b"\n")

    def _settle(self, item: _Object) -> None:
        """Store what has become of an object, whole, or tell what is wrong with it."""
        # The other objects are still transformed, as on AWS.
        if item.failure is not None:
            self._log(f"{item.source.bucket}/{item.source.key}: {item.failure}")
        else:
            item.output.touch()
            self._objects.upload(item.output, item.target)
        for path in (item.input, item.output):
            path.unlink(missing_ok=True)


def _in_order(
    pool: ThreadPoolExecutor,
    function: Callable[[_Task], _Result],
    tasks: Iterable[_Task],
    limit: int,
) -> Iterator[tuple[_Task, _Result]]:
    """Yield tasks with their results, in the order of the tasks.

    Parameters
    ----------
    pool
        Where the function is called.
    function
        Gives a task's result.
    tasks
        Taken one by one.
    limit
        How many are taken before the first of them is yielded.
    """
    under_way: collections.deque[tuple[_Task, Future[_Result]]] = collections.deque()
    for task in tasks:
        under_way.append((task, pool.submit(function, task)))
        if len(under_way) == limit:
            first, result = under_way.popleft()
            yield first, result.result()
    for first, result in under_way:
        yield first, result.result()
