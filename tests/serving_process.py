"""A real `mlflow models serve`, for tests of what it answers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def hears_ctrl_c() -> None:
    """For a child that is to get SIGINT: shells start what runs in the background with SIGINT ignored, children too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def process(command: list[str], ready: str, log: Path, seconds: float = 60) -> Iterator[None]:
    """Run `command` until the block ends; it begins when the address `ready` answers."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with log.open("w") as file:
        running = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                urllib.request.urlopen(ready, timeout=1).close()
                break
            except OSError:
                assert running.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.2)
        yield
    finally:
        os.killpg(running.pid, 15)
        running.wait(30)


def served(model: str, question: dict[str, Any]) -> list[dict[str, Any]]:
    """What `mlflow models serve` answers to one request."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = ["mlflow", "models", "serve", "-m", model, "--env-manager", "local", "--port", str(port)]
    with process(command, f"{address}/ping", Path("serve.log")):
        return post(f"{address}/invocations", question)


def post(address: str, question: dict[str, Any]) -> list[dict[str, Any]]:
    """The predictions that a scoring server answers with."""
    asked = urllib.request.Request(address, json.dumps(question).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        found: list[dict[str, Any]] = json.load(answer)["predictions"]
    return found
