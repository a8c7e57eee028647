"""Models for the tests of scoring."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

# Spark's workers have the environment in which its JVM started, so it must be there before any test.
KEY = "sk-secret-0123456789-never-to-be-seen"
os.environ["LLMOPS_TEST_API_KEY"] = KEY
NUMBERS = ModelSignature(Schema([ColSpec("string")]), Schema([ColSpec("double")]))


class Moody:
    """The folder of `moody.py` as a model, and what it was asked."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.uri, self.log = str(folder / "model"), folder / "asked.log"
        self.log.touch()
        config = {"log": str(self.log), **config}
        code = str(Path(__file__).parent / "moody.py")
        mlflow.pyfunc.save_model(
            self.uri, python_model=code, model_config=config, signature=NUMBERS, pip_requirements=["mlflow"]
        )

    @property
    def asked(self) -> list[str]:
        return [line[1:-1] for line in self.log.read_text().splitlines()]


@pytest.fixture
def moody(tmp_path: Path) -> Callable[..., Moody]:
    """Makes one, with what its texts are to do."""
    made: list[Moody] = []

    def make(**config: Any) -> Moody:
        folder = tmp_path / f"moody-{len(made)}"
        folder.mkdir()
        made.append(Moody(folder, config))
        return made[-1]

    return make


class Endpoint:
    """A server that answers with a text's length, slowly, and fails for texts that begin with `fault`."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.texts: list[str] = []
        self.times: list[float] = []
        self.at_once = self.most_at_once = 0
        self.meet = 0
        """The first so many requests wait for each other: a slow machine starts its processes one by one."""
        lock, endpoint = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["Content-Length"])).decode()
                with lock:
                    endpoint.texts.append(text)
                    endpoint.times.append(time.monotonic())
                    endpoint.at_once += 1
                    endpoint.most_at_once = max(endpoint.most_at_once, endpoint.at_once)
                patience = time.monotonic() + 30
                while endpoint.most_at_once < endpoint.meet and time.monotonic() < patience:
                    time.sleep(0.01)
                time.sleep(endpoint.seconds)
                good = self.headers["Authorization"] == KEY and not text.startswith("fault")
                with lock:
                    endpoint.at_once -= 1
                self.send_response(200 if good else 500)
                self.end_headers()
                self.wfile.write(str(len(text)).encode())

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint(0.05)
    yield server
    server.http.shutdown()
    server.http.server_close()
