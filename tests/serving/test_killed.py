"""A worker that is killed: each connection that it held gets the answer that it can still have."""

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil
import pytest

from mlflow_llmops.serving.server import HEALTH_SECONDS
from tests.serving.conftest import Running, answer, connected, posted, replaced, rest, serving, wait_until, workers

PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
BOUNDS = ("--max-letters", "300", "--max-waiting", "9000", "--timeout", "600")
LONG = {"model": "writer", "prompt": [f"the boat {i}" for i in range(1500)], "max_tokens": 50, "temperature": 2}


@pytest.fixture(scope="module")
def two(writing_folder, tmp_path_factory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("two")
    with serving(str(writing_folder / "writer"), folder, "--workers", "2", *BOUNDS) as running:
        wait_until(lambda: len(workers(running)) == 2)
        yield running


@contextmanager
def only(running: Running, pid: int) -> Iterator[None]:
    """What connects meanwhile comes to this worker, since the other one is stopped."""
    (other,) = (each for each in workers(running) if each != pid)
    psutil.Process(other).suspend()
    try:
        yield
    finally:
        psutil.Process(other).resume()


def total(running: Running) -> float:
    return sum(running.metric(f"llmops_{name}") for name in ("requests_total", "request_seconds_count"))


@pytest.mark.slow
def test_each_connection_of_a_killed_worker_gets_what_it_can_still_have(two):
    victim, other = workers(two)
    said = len(two.log.read_text())
    with only(two, other):
        elsewhere = connected(two)
        elsewhere.sendall(PING)
        assert answer(elsewhere).read() == b"\n"
    with only(two, victim):
        streamed, held, part, idle, fresh, again = (connected(two) for _ in range(6))
        for connection in (idle, again):
            connection.sendall(PING)
            assert answer(connection).read() == b"\n"
        streamed.sendall(posted("/v1/completions", {**LONG, "stream": True}))
        begun = streamed.recv(4096)
        assert b"200 OK" in begun
        held.sendall(posted("/v1/completions", LONG))
        again.sendall(posted("/v1/completions", LONG))
        part.sendall(PING[:20])
        refused = connected(two)  # the last one: when it is answered, the others were accepted
        refused.sendall(posted("/v1/completions", {**LONG, "prompt": "x" * 400}))
        told = answer(refused)
        assert told.status == 413 and told.read()
        asked, lost = total(two), two.metric("llmops_lost_requests_total")
        psutil.Process(victim).send_signal(signal.SIGKILL)
        killed = time.monotonic()
        for connection in (held, again, part):
            told = answer(connection)
            assert told.status == 502 and told.getheader("Connection") == "close"
            assert json.loads(told.read())["error"]["code"] == "worker_died"
            assert rest(connection) == b""
        assert rest(idle) == rest(refused) == b""
        assert b"[DONE]" not in (after := rest(streamed)) and b"502" not in after
        fresh.sendall(PING)
        assert answer(fresh).status == 502
        assert time.monotonic() - killed < 30
    elsewhere.sendall(PING)
    assert answer(elsewhere).read() == b"\n"
    wait_until(lambda: replaced(two, victim))
    # what the dead worker had counted is still there
    assert total(two) >= asked
    assert two.metric("llmops_lost_requests_total") == lost + 4
    says = r"a worker died with (\d+) connections, (\d+) of their requests are told 502"
    (died,) = re.findall(says, two.log.read_text()[said:])
    # more than the seven where it had not yet seen that those who asked for the metrics had gone
    assert int(died[0]) >= 7 and int(died[1]) == 3


@pytest.mark.slow
def test_a_body_that_nobody_reads_any_more_does_not_take_the_answer_back(two):
    victim = workers(two)[0]
    with only(two, victim):
        sending = connected(two)
        sending.sendall(PING)
        assert answer(sending).read() == b"\n"
        sending.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n{")
        assert httpx.get(f"{two.url}/ping", timeout=60).status_code == 200  # what came before this has been read
        psutil.Process(victim).send_signal(signal.SIGKILL)
        for _ in range(20):
            sending.sendall(b" " * 10_000)
            time.sleep(0.02)
        assert answer(sending).status == 502
    wait_until(lambda: replaced(two, victim))
    assert httpx.get(f"{two.url}/ping", timeout=60).status_code == 200


@pytest.mark.slow
def test_a_worker_that_dies_while_it_is_asked_whether_it_lives_is_replaced_at_once(two):
    victim = workers(two)[0]
    psutil.Process(victim).suspend()
    time.sleep(2)  # the supervisor asks twice a second, and waits for this one's answer now
    psutil.Process(victim).kill()
    wait_until(lambda: replaced(two, victim), seconds=HEALTH_SECONDS - 10)


@pytest.mark.slow
def test_connections_that_ended_are_held_no_more(two):
    supervisor = psutil.Process(two.process.pid)
    before = supervisor.num_fds()
    for _ in range(50):
        with connected(two) as connection:
            connection.sendall(PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            assert rest(connection).startswith(b"HTTP/1.1 200 ")  # the duplicate keeps none open
    wait_until(lambda: supervisor.num_fds() < before + 10)
