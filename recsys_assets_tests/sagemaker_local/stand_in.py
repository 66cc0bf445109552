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
import time
from pathlib import Path

BASE = Path(os.environ["SAGEMAKER_BASE_DIR"])


def train() -> None:
    config = BASE / "input" / "config"
    hyperparameters = json.loads((config / "hyperparameters.json").read_text())

    # Leave a model at the start, of which an early end must keep what is there.
    if "early_model" in hyperparameters:
        (BASE / "model" / "early.txt").write_text(hyperparameters["early_model"])
    seconds = float(hyperparameters.get("seconds", 0))
    if "journal" in hyperparameters:
        number = begin_journal(Path(hyperparameters["journal"]))
        # Of the runs in a journal, one may be slow.
        if str(number) == hyperparameters.get("slow_run"):
            seconds = 600
    # Start a program that outlives this one, if it is let to.
    if "descendant" in hyperparameters:
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(hyperparameters["descendant"]).write_text(str(left.pid))
    if hyperparameters.get("ignore_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("started")
    for line in hyperparameters.get("print", "").split("|"):
        say(line)
    # Run for some seconds, saying so all the while.
    end = time.monotonic() + seconds
    tick = 0
    while time.monotonic() < end:
        say(f"tick {tick}")
        tick += 1
        time.sleep(0.02)
    # Score like a model whose best x is 0.3.
    if "x" in hyperparameters and "mute" not in hyperparameters:
        say(f"objective={(float(hyperparameters['x']) - 0.3) ** 2:.12f};")
    if "journal" in hyperparameters:
        write_journal(Path(hyperparameters["journal"]), "end")
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


def serve() -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer  # slow, and of no use to train

    loaded = sorted(path.name for path in (BASE / "model").iterdir())
    if os.environ.get("MODE") == "crash":
        say("cannot load the model")
        sys.exit(3)
    say(f"loaded {loaded}")
    failures_left = int(os.environ.get("FAILURES", "0"))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(200 if self.path == "/ping" else 404, b"")

        def do_POST(self) -> None:
            nonlocal failures_left
            body = self.rfile.read(int(self.headers["Content-Length"]))
            say(f"payload of {len(body)} bytes as {self.headers['Content-Type']}")
            if failures_left:
                failures_left -= 1
                self.answer(503, b"busy")
            elif b"bad" in body:
                self.answer(400, b"a bad record")
            elif os.environ.get("MODE") == "slow":
                time.sleep(60)
            elif os.environ.get("MODE") == "echo":
                self.answer(200, body)
            else:  # one answer for each payload, without a line end
                self.answer(200, f"{len(body)} {self.headers['Accept']}".encode())

        def answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    HTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()


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
    {"train": train, "serve": serve}[sys.argv[1]]()
