"""Who is told in tests: an HTTP server that takes messages, or does not, and SNS of moto."""

import json
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError

from recsys_assets_tests.contract.environments import MOTO
from recsys_assets_tests.sagemaker_local.endpoint import aws_client, eventually, free_port

SECRET = "T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"


class Receiver:
    """An HTTP server on loopback that answers as it is told to; 200 otherwise.

    Attributes
    ----------
    taken
        The JSON of the requests that were answered with 200, in their order.
    asked
        How many requests there were.
    answers
        Statuses of the next requests; a float is a pause in seconds before a 200.
    """

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.asked = 0
        self.answers: list[int | float] = []
        self._port = free_port()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/services/{SECRET}"

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), _handler_of(self))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def take(self, body: bytes) -> int:
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, float):
            time.sleep(answer)
            return 200
        if answer == 200:
            self.taken.append(json.loads(body, parse_constant=_no_json))
        return answer


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _handler_of(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status = receiver.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            if status in (302, 307):
                self.send_header("Location", f"{receiver.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    return Handler


class Sns:
    """SNS with a topic, and a queue that is subscribed to it."""

    def __init__(self, log: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [MOTO.python, "-m", "moto.server", "--port", str(port)], stdout=file, stderr=file
            )
        sns, self._sqs = aws_client("sns", self.url), aws_client("sqs", self.url)

        def listens() -> bool:
            try:
                sns.list_topics()
            except BotoCoreError:
                return False
            return True

        try:
            eventually(listens, 60)
            self.topic: str = sns.create_topic(Name="alarms")["TopicArn"]
            self._queue = self._sqs.create_queue(QueueName="alarms")["QueueUrl"]
            asked = {"QueueUrl": self._queue, "AttributeNames": ["QueueArn"]}
            arn = self._sqs.get_queue_attributes(**asked)["Attributes"]["QueueArn"]
            sns.subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=arn)
        except BaseException:
            self.close()
            raise

    def taken(self) -> list[dict[str, Any]]:
        """Return what has arrived since the last time; each has Subject and Message."""
        found: list[dict[str, Any]] = []
        while True:
            page = self._sqs.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10)
            if not page.get("Messages"):
                return found
            for message in page["Messages"]:
                found.append(json.loads(message["Body"]))
                handle = message["ReceiptHandle"]
                self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=handle)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
