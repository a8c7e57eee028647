"""Clients that hold connections instead of asking, and answers that come too late."""

import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.serving.conftest import Running, answer, connected, rest, serving, wait_until

MOST = 6
PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n"
LONG = {"model": "writer", "prompt": [f"the boat {i}" for i in range(200)], "max_tokens": 50, "temperature": 2}


@pytest.fixture(scope="module")
def bounded(writing_folder, tmp_path_factory) -> Iterator[Running]:
    """It lets an answer take 20 ms, a head a second, and keeps six connections."""
    bounds = ("--timeout", "0.02", "--head-seconds", "1", "--max-connections", str(MOST))
    with serving(str(writing_folder / "writer"), tmp_path_factory.mktemp("bounded"), *bounds) as running:
        yield running


@pytest.fixture(autouse=True)
def alone(bounded):
    """The connections of the test before are gone."""
    wait_until(lambda: httpx.get(f"{bounded.url}/ping", timeout=60).status_code == 200)


def trickled(connection: socket.socket) -> bytes:
    """A byte of a head now and then, for as long as the other side lets us."""
    connection.settimeout(0.2)
    until, found = time.monotonic() + 60, b""
    connection.sendall(PING)
    while time.monotonic() < until and not found:
        try:
            connection.sendall(b"X")
            found = connection.recv(65536)
        except TimeoutError:
            continue
    return found


@pytest.mark.parametrize("asked_before", [False, True])
def test_a_head_that_trickles_is_told_after_its_time(bounded, asked_before):
    with connected(bounded) as connection:
        if asked_before:
            connection.sendall(PING + b"\r\n")
            assert answer(connection).read() == b"\n"
        start = time.monotonic()
        said = trickled(connection)
        assert said.startswith(b"HTTP/1.1 408 ") and b"connection: close" in said.lower()
        assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "slow_head"
        assert time.monotonic() - start >= 1


def test_a_connection_that_asks_nothing_is_closed(bounded):
    with connected(bounded) as connection:
        assert rest(connection) == b""


def test_more_connections_than_there_may_be_are_told_to_come_again(bounded):
    held = [connected(bounded) for _ in range(MOST)]
    time.sleep(0.3)
    answer = httpx.get(f"{bounded.url}/ping", timeout=60)
    assert answer.status_code == 429 and answer.headers["Retry-After"] == "1"
    assert answer.json()["error"]["message"].startswith("6 connections are open already")
    for connection in held:
        connection.close()
    wait_until(lambda: httpx.get(f"{bounded.url}/ping", timeout=60).status_code == 200)


def test_an_answer_that_comes_too_late_is_said(bounded):
    with bounded.client() as client:
        late = client.post("/v1/completions", json=LONG)
        assert late.status_code == 504 and "no answer within 0.02 seconds" in late.json()["error"]["message"]
        streamed = client.post("/v1/completions", json={**LONG, "stream": True})
        assert streamed.status_code == 429 or '"code": "timeout"' in streamed.text
    assert bounded.metric("llmops_requests_total") > 0


def test_a_client_that_does_not_read_is_left(bounded):
    with connected(bounded) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(180)  # until megabytes of short answers fill the buffers between
        with pytest.raises(ConnectionError):
            connection.sendall((PING + b"\r\n") * 400_000)
    wait_until(lambda: httpx.get(f"{bounded.url}/ping", timeout=60).status_code == 200)
