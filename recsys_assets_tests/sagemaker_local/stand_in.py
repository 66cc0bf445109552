"""A tiny program under SageMaker's container contract, run as ``stand_in.py train|serve``.

What ``train`` does is told by its hyperparameters, what ``serve`` does by environment variables;
both stand beside the code that reads them.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

BASE = Path(os.environ["SAGEMAKER_BASE_DIR"])


def train() -> None:
    config = BASE / "input" / "config"
    hyperparameters = json.loads((config / "hyperparameters.json").read_text())

    # Leave a model at the start, of which an early end must keep what is there.
    if "early_model" in hyperparameters:
        (BASE / "model" / "early.txt").write_text(hyperparameters["early_model"])
    seconds = float(hyperparameters.get("seconds", 0))
    journal = Path(hyperparameters.get("journal", os.devnull))
    if journal.is_dir():  # of one file for each job
        journal /= os.environ["TRAINING_JOB_NAME"]
    if "journal" in hyperparameters:
        number = begin_journal(journal)
        # Of the runs in a journal, one may be slow.
        if str(number) == hyperparameters.get("slow_run"):
            seconds = 600
    # Start a program that outlives this one, if it is let to.
    if "descendant" in hyperparameters:
        left = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"],
            start_new_session="own_session" in hyperparameters,
        )
        Path(hyperparameters["descendant"]).write_text(str(left.pid))
    if hyperparameters.get("ignore_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("started")
    # Count the runs of a job in a checkpoint.
    if "checkpoint" in hyperparameters:
        found = sorted(path.name for path in (BASE / "checkpoints").iterdir())
        progress = BASE / "checkpoints" / "runs"
        runs = int(progress.read_text()) + 1 if progress.exists() else 1
        progress.write_text(str(runs))
        say(f"run {runs}, found {found}")
    # Read so many epochs of every channel in Pipe mode, or only a byte of each.
    channels = json.loads((config / "inputdataconfig.json").read_text())
    pipes = [name for name, item in channels.items() if item["TrainingInputMode"] == "Pipe"]
    read: dict[str, list[str]] = {name: [] for name in pipes}
    for epoch in range(int(hyperparameters.get("epochs", 0))):
        for name in pipes:
            with (BASE / "input" / "data" / f"{name}_{epoch}").open("rb") as pipe:
                content = pipe.read(1 if "early_close" in hyperparameters else -1)
            read[name].append(content.decode())
    for line in hyperparameters.get("print", "").split("|"):
        say(line)
    # Run for some seconds, saying so all the while.
    end = time.monotonic() + seconds
    tick = 0
    while time.monotonic() < end:
        say(f"tick {tick}")
        tick += 1
        time.sleep(0.02)
    # Score like a model whose best x is 0.3, at the end or after every epoch.
    if "x" in hyperparameters and "mute" not in hyperparameters:
        error = (float(hyperparameters["x"]) - 0.3) ** 2
        if "score_epochs" not in hyperparameters:
            say(f"objective={error:.12f};")
        else:
            # An epoch of a bad model takes long, so that it has not ended when it is given up.
            slow = error > float(hyperparameters["slow_above"])
            pause = float(hyperparameters.get("pause", 5)) if slow else 0.05
            for epoch in range(1, int(hyperparameters["epochs"]) + 1):
                say(f"objective={error + 1 / epoch:.12f};")
                time.sleep(pause)
    if "journal" in hyperparameters:
        write_journal(journal, "end")
    if "failure" in hyperparameters:
        (BASE / "output" / "failure").write_text(hyperparameters["failure"])
        sys.exit(1)
    if "exit" in hyperparameters:
        sys.exit(int(hyperparameters["exit"]))

    files = sorted(path for path in (BASE / "input" / "data").rglob("*") if path.is_file())
    seen = {
        "hyperparameters": hyperparameters,
        "inputdataconfig": json.loads((config / "inputdataconfig.json").read_text()),
        "resourceconfig": json.loads((config / "resourceconfig.json").read_text()),
        "arguments": sys.argv[2:],
        "pipes": read,
        "files": {
            str(path.relative_to(BASE / "input" / "data")): hashlib.md5(
                path.read_bytes(), usedforsecurity=False
            ).hexdigest()
            for path in files
        },
        "environment": {
            name: os.environ.get(name)
            for name in ("TRAINING_JOB_NAME", "TRAINING_JOB_ARN", "EXTRA")
        },
    }
    (BASE / "model" / "seen.json").write_text(json.dumps(seen))
    if "output_data" in hyperparameters:
        (BASE / "output" / "data" / "notes.txt").write_text(hyperparameters["output_data"])


def process() -> None:
    """Copy the inputs to the outputs, with a file that tells what else was found."""
    folder = BASE / "processing"
    if "JOURNAL" in os.environ:
        begin_journal(Path(os.environ["JOURNAL"]))
    say("started")
    if "MESSAGE" in os.environ:
        message = os.environ["MESSAGE"] * int(os.environ.get("TIMES", "1"))
        content = message.encode(os.environ.get("ENCODING", "utf-8"))
        (BASE / "output" / "message").write_bytes(content)
    for path in sorted((folder / "input").rglob("*")):
        if path.is_file():
            target = folder / "output" / path.relative_to(folder / "input")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes().upper())
    found = {path.name: json.loads(path.read_text()) for path in (BASE / "config").iterdir()}
    found["arguments"] = sys.argv[2:]
    (folder / "output" / "found.json").write_text(json.dumps(found))
    if "SLOW_ONCE" in os.environ and not (once := Path(os.environ["SLOW_ONCE"])).exists():
        once.touch()
        time.sleep(600)
    time.sleep(float(os.environ.get("SECONDS", "0")))
    if "JOURNAL" in os.environ:
        write_journal(Path(os.environ["JOURNAL"]), "end")
    sys.exit(int(os.environ.get("EXIT", "0")))


def serve() -> None:
    # Slow, and of no use to train.
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    loaded = sorted(path.name for path in (BASE / "model").iterdir())
    if os.environ.get("MODE") == "crash":
        say("cannot load the model")
        sys.exit(3)
    # Take until a file is there to load the model.
    while "LOADED" in os.environ and not Path(os.environ["LOADED"]).exists():
        time.sleep(0.02)
    say(f"loaded {loaded}")
    failures_left = int(os.environ.get("FAILURES", "0"))
    # So many requests wait for each other; the last to come is answered first.
    party = threading.Barrier(int(os.environ.get("PARTY", "1")), timeout=120)
    under_way: set[int] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one piece: the next would wait for the last's confirmation

        def do_GET(self) -> None:
            if self.path == "/execution-parameters" and "EXECUTION_PARAMETERS" in os.environ:
                self.answer(200, os.environ["EXECUTION_PARAMETERS"].encode())
            else:
                self.answer(200 if self.path == "/ping" else 404, b"")

        def do_POST(self) -> None:
            nonlocal failures_left
            body = self.body()
            say(f"payload of {len(body)} bytes as {self.headers['Content-Type']}")
            if failures_left:
                failures_left -= 1
                self.answer(503, b"busy")
            elif b"bad" in body:
                self.answer(400, b"a bad record")
            elif os.environ.get("MODE") == "slow" or b"slow" in body:
                time.sleep(60)
            elif os.environ.get("MODE") == "party":
                under_way.add(threading.get_ident())
                say(f"{len(under_way)} under way")
                time.sleep(0.05 * party.wait())
                under_way.remove(threading.get_ident())
                self.answer(200, body)
            elif os.environ.get("MODE") == "sums":
                self.answer(200, sums(body.decode(), self.headers["Content-Type"]).encode())
            elif os.environ.get("MODE") == "echo":
                self.answer(200, body)
            elif os.environ.get("MODE") == "tell":
                self.tell(json.loads(body or b"{}"))
            else:  # one answer for each payload, without a line end
                self.answer(200, f"{len(body)} {self.headers['Accept']}".encode())

        def body(self) -> bytes:
            if "Content-Length" in self.headers:
                return self.rfile.read(int(self.headers["Content-Length"]))
            say("chunks")
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def tell(self, request: dict[str, Any]) -> None:
            """Tell who answers, when and how the request has it."""
            while "until" in request and not Path(request["until"]).exists():
                time.sleep(0.02)
            if "exit" in request:
                os._exit(request["exit"])
            told = {
                "name": os.environ.get("NAME"),
                "pid": os.getpid(),
                "headers": {name.lower(): text for name, text in self.headers.items()},
            }
            content = b"x" * request["size"] if "size" in request else json.dumps(told).encode()
            self.answer(
                request.get("status", 200),
                content,
                {
                    "Content-Type": "application/json",
                    "X-Amzn-SageMaker-Custom-Attributes": "told=1",
                },
            )

        def answer(
            self, status: int, content: bytes, headers: Mapping[str, str] = MappingProxyType({})
        ) -> None:
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    address = "127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])
    ThreadingHTTPServer(address, Handler).serve_forever()


def sums(text: str, content_type: str) -> str:
    """Return the sum of each line's numbers, which are CSV or a JSON array."""
    if content_type == "text/csv":
        return "".join(f"{sum(map(float, line.split(',')))}\n" for line in text.splitlines())
    return "\n".join(json.dumps({"sum": sum(json.loads(line))}) for line in text.splitlines())


def begin_journal(path: Path) -> int:
    """Note that this process begins, and which of those before it still run; return its number."""
    events = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    begun = [pid for event, pid in events if event == "begin"]
    for pid in begun:
        if Path(f"/proc/{pid}").exists():
            write_journal(path, f"meets-{pid}")
    write_journal(path, "begin")
    return len(begun) + 1


def write_journal(path: Path, event: str) -> None:
    with path.open("a") as file:
        file.write(f"{event} {os.getpid()}\n")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    {"train": train, "serve": serve, "process": process}[sys.argv[1]]()
