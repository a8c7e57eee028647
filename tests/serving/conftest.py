"""Real servers over loopback, one a model for all tests of a module."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from mlflow_llmops.flavors.by_kind import save_text_model

READY_SECONDS = 120


@dataclass
class Running:
    """A server's process and its address."""

    process: subprocess.Popen
    url: str
    log: Path
    model: str

    def client(self, **given) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **given)

    def metric(self, name: str) -> float:
        """The sum over a metric's labels."""
        lines = httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].split(" ")[0] == name)


@contextmanager
def serving(model: str, folder: Path, *options: str, environment: dict[str, str] | None = None) -> Iterator[Running]:
    """`mlflow-llmops serve` until the block ends."""
    port_file, log = folder / "port", folder / "serve.log"
    command = [sys.executable, "-W", "ignore", "-m", "mlflow_llmops", "serve", "--model", model, "--port", "0"]
    with log.open("w") as file:
        started = subprocess.Popen(
            [*command, "--port-file", str(port_file), *options],
            env={**os.environ, "HF_HUB_OFFLINE": "1", **(environment or {})},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + READY_SECONDS
        url = ""
        while not url:
            assert started.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
            if port_file.exists():
                url = f"http://127.0.0.1:{port_file.read_text()}"
                urllib.request.urlopen(f"{url}/ping", timeout=READY_SECONDS).close()
        yield Running(started, url, log, model)
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
        started.wait(30)
        (folder / "port").unlink(missing_ok=True)


def wait_until(holds: Callable[[], Any], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def workers(running: Running) -> list[int]:
    """Those whose model is loaded."""
    text = httpx.get(f"{running.url}/metrics", timeout=60).text
    said = re.findall(r'^llmops_ready\{pid="(\d+)"\} ([\d.]+)$', text, flags=re.MULTILINE)
    alive = {child.pid for child in psutil.Process(running.process.pid).children()}
    return [int(pid) for pid, loaded in said if float(loaded) and int(pid) in alive]


def replaced(running: Running, victim: int) -> bool:
    """Whether one of two workers is another one now."""
    return len(found := workers(running)) == 2 and victim not in found


def connected(running: Running) -> socket.socket:
    """For what no client library would send."""
    host, port = running.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def posted(path: str, asked: Any) -> bytes:
    """A request's bytes."""
    body = json.dumps(asked).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def answer(connection: socket.socket) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response


def rest(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    found = b""
    while part := connection.recv(65536):
        found += part
    return found


@pytest.fixture(scope="module")
def labelling(tiny_exported, tmp_path_factory) -> Iterator[Running]:
    """The tiny classifier as a graph, whose requests may have 40,000 bytes and two seconds."""
    folder = tmp_path_factory.mktemp("labelling")
    save_text_model(tiny_exported, folder / "tiny")
    bounds = ("--max-body-bytes", "40000", "--max-letters", "5000", "--max-texts", "200", "--body-seconds", "2")
    with serving(str(folder / "tiny"), folder, *bounds) as running:
        yield running


@pytest.fixture(scope="module")
def writing_folder(tiny_decoder, tmp_path_factory) -> Path:
    """The tiny causal model in torch, with a chat template that writes the first token itself."""
    folder = tmp_path_factory.mktemp("writing")
    tokenizer = tiny_decoder.tokenizer
    template = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    before = tokenizer.chat_template
    tokenizer.chat_template = template
    try:
        save_text_model(tiny_decoder, folder / "writer")
    finally:
        tokenizer.chat_template = before
    return folder


@pytest.fixture(scope="module")
def writing(writing_folder) -> Iterator[Running]:
    with serving(str(writing_folder / "writer"), writing_folder) as running:
        yield running
