"""A server of a user's model: ``serving.py SCRIPT MODEL_FOLDER``.

The script defines ``model_fn(model_dir)`` and, where the defaults do not do, ``input_fn(body,
content_type)``, ``predict_fn(data, model)`` and ``output_fn(prediction, accept)``, as for the
SageMaker inference toolkit. SageMaker's routes are answered on 127.0.0.1, at the port
SAGEMAKER_BIND_TO_PORT. Run by its path in the user's Python, so that only the standard library
belongs here, and numpy where a default needs it.
"""

import http.server
import importlib.util
import io
import json
import os
import sys
import threading
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

_JSON, _CSV, _NPY = "application/json", "text/csv", "application/x-npy"


class UnsupportedType(ValueError):  # noqa: N818 - says what is the matter
    """A media type that no function at hand reads or writes."""


def main(script: Path, model_folder: Path) -> None:
    """Load the model and answer requests until the process is ended."""
    module = _load(script)
    if not hasattr(module, "model_fn"):
        sys.exit(f"{script.name} must define model_fn(model_dir)")
    if hasattr(module, "transform_fn"):
        sys.exit(
            f"{script.name} defines transform_fn, which is not supported here: define input_fn,"
            " predict_fn and output_fn in its place"
        )
    model = module.model_fn(str(model_folder))
    port = int(os.environ["SAGEMAKER_BIND_TO_PORT"])
    http.server.ThreadingHTTPServer(("127.0.0.1", port), _handler(module, model)).serve_forever()


def default_input(body: bytes, content_type: str) -> Any:
    """Return the array that a request's body holds, read as JSON, CSV or NPY (no pickles)."""
    import numpy as np

    if content_type == _JSON:
        return np.array(json.loads(body))
    if content_type == _CSV:
        return np.loadtxt(io.BytesIO(body), delimiter=",", ndmin=2)
    if content_type == _NPY:
        return np.load(io.BytesIO(body), allow_pickle=False)
    raise UnsupportedType(f"expected {_JSON}, {_CSV} or {_NPY}, got {content_type}")


def default_output(prediction: Any, accept: str) -> tuple[bytes, str]:
    """Return a prediction's array as JSON, CSV or NPY, and the type of that."""
    import numpy as np

    values = np.asarray(prediction)
    if accept in (_JSON, "*/*"):
        return json.dumps(values.tolist()).encode(), _JSON
    content = io.BytesIO()
    if accept == _CSV:
        np.savetxt(content, values, delimiter=",", fmt="%.17g")
    elif accept == _NPY:
        np.save(content, values, allow_pickle=False)
    else:
        raise UnsupportedType(f"expected {_JSON}, {_CSV} or {_NPY} to be accepted, got {accept}")
    return content.getvalue(), accept


def _load(script: Path) -> ModuleType:
    sys.path[0] = str(script.parent)  # in place of this file's own folder
    spec = importlib.util.spec_from_file_location(script.stem, script)
    if spec is None or spec.loader is None:
        sys.exit(f"{script.name} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.stem] = module
    spec.loader.exec_module(module)
    return module


def _handler(module: ModuleType, model: Any) -> type[http.server.BaseHTTPRequestHandler]:
    input_fn = getattr(module, "input_fn", default_input)
    predict_fn = getattr(module, "predict_fn", lambda data, model: model.predict(data))
    output_fn = getattr(module, "output_fn", default_output)
    one_at_a_time = threading.Lock()  # a user's functions need not be safe to call from threads

    def answer(body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        with one_at_a_time:
            data = input_fn(body, content_type)
            answered = output_fn(predict_fn(data, model), accept)
        content, media_type = answered if isinstance(answered, tuple) else (answered, accept)
        return (content.encode() if isinstance(content, str) else content), media_type

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(200 if self.path == "/ping" else 404, b"", "text/plain")

        def do_POST(self) -> None:
            if "Content-Length" not in self.headers:
                self.close_connection = True  # with the body still unread
                message = b"a body in chunks, without Content-Length, is not supported"
                self._send(411, message, "text/plain")
                return
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != "/invocations":
                self._send(404, b"", "text/plain")
                return
            content_type = self.headers.get("Content-Type", _JSON).partition(";")[0]
            try:
                content, media_type = answer(body, content_type, self.headers.get("Accept", _JSON))
            except UnsupportedType as error:
                self._send(415, str(error).encode(), "text/plain")
            except Exception as error:
                traceback.print_exc()
                self._send(500, f"{type(error).__name__}: {error}".encode(), "text/plain")
            else:
                self._send(200, content, media_type)

        def _send(self, status: int, content: bytes, media_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Write nothing: the log is the script's."""

    return Handler


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
