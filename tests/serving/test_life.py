"""A server through what happens to it: an alias that moves, a worker that is killed, too many requests, its end."""

import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import mlflow
import psutil
import pytest
from mlflow.tracking import MlflowClient

from mlflow_llmops.engines.artifact import DESCRIPTION
from mlflow_llmops.flavors.by_kind import save_text_model
from mlflow_llmops.flavors.exported_text import DATA
from tests.serving.conftest import Running, replaced, serving, wait_until, workers

NAME, TEXT = "tiny", "an oven with butter and flour"


@pytest.fixture(scope="module")
def registry(tiny_exported, empty_database, tmp_path_factory) -> Iterator[MlflowClient]:
    """Three versions: one, one with its labels the other way round, one whose graph is broken."""
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    shutil.copy(empty_database, folder / "mlflow.db")
    for number in ("1", "2", "3"):
        save_text_model(tiny_exported, folder / number)
    described = json.loads((path := folder / "2" / DATA / DESCRIPTION).read_text())
    path.write_text(json.dumps({**described, "labels": described["labels"][::-1]}))
    next((folder / "3" / DATA).glob("*.xml")).write_text("no graph")
    before = mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        client = MlflowClient()
        client.create_registered_model(NAME)
        for number in ("1", "2", "3"):
            client.create_model_version(NAME, str(folder / number))
        client.set_registered_model_alias(NAME, "champion", "1")
        yield client
        mlflow.set_tracking_uri(before)
        mlflow.set_registry_uri(before)


@pytest.fixture(scope="module")
def two_workers(registry, tmp_path_factory) -> Iterator[Running]:
    options = ("--workers", "2", "--poll-seconds", "0.5", "--max-waiting", "4", "--cache", "0")
    with serving(f"models:/{NAME}@champion", tmp_path_factory.mktemp("workers"), *options) as running:
        wait_until(lambda: len(workers(running)) == 2)
        yield running


class Asking:
    """Clients that ask one after the other while the block runs, and what they got."""

    def __init__(self, running: Running, threads: int = 3) -> None:
        self.url, self.over, self.got, self.begun = running.url, threading.Event(), [], []
        self.threads = [threading.Thread(target=self._ask) for _ in range(threads)]

    def _ask(self) -> None:
        while not self.over.is_set():
            try:
                with httpx.Client(base_url=self.url, timeout=60) as client:
                    while not self.over.is_set():
                        begun = time.monotonic()
                        answer = client.post("/invocations", json={"inputs": [TEXT]})
                        said = answer.json()["predictions"][0]["label"] if answer.status_code == 200 else None
                        self.got.append((answer.status_code, said))
                        self.begun.append((begun, said))  # answers may be noted in another order than they came
            except httpx.TransportError as error:
                self.got.append((0, type(error).__name__))

    def __enter__(self) -> "Asking":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *raised: Any) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.slow
def test_a_version_takes_over_while_requests_run_and_one_that_does_not_load_changes_nothing(registry, two_workers):
    def outcomes(outcome: str) -> int:
        text = httpx.get(f"{two_workers.url}/metrics", timeout=60).text
        start = f'llmops_version_changes_total{{outcome="{outcome}"}} '
        return sum(int(float(line.removeprefix(start))) for line in text.splitlines() if line.startswith(start))

    # with the labels the other way round a text of the middle one would show no change
    expected = [mlflow.pyfunc.load_model(f"models:/{NAME}/{number}").predict([TEXT])["label"][0] for number in "12"]
    assert expected == ["kitchen", "weather"]
    loaded, failed = outcomes("loaded"), outcomes("failed")
    with Asking(two_workers) as asking:
        wait_until(lambda: len(asking.got) > 20)
        registry.set_registered_model_alias(NAME, "champion", "2")
        wait_until(lambda: outcomes("loaded") >= loaded + 2)
        changed = time.monotonic()
        registry.set_registered_model_alias(NAME, "champion", "3")
        wait_until(lambda: outcomes("failed") >= failed + 2)  # tried again after a minute
        seen = len(asking.got)
        wait_until(lambda: len(asking.got) > seen + 20)
    assert {status for status, _ in asking.got} == {200}, asking.got
    assert asking.begun[0][1] == expected[0] and {label for _, label in asking.begun} == set(expected)
    assert {label for begun, label in asking.begun if begun > changed} == {expected[1]}
    said = two_workers.log.read_text()
    assert "models:/tiny/3 does not load, models:/tiny/2 serves on" in said
    assert "models:/tiny/2 serves, after models:/tiny/1" in said
    registry.set_registered_model_alias(NAME, "champion", "1")
    wait_until(lambda: outcomes("loaded") >= loaded + 4)


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_what_it_held_and_is_replaced(two_workers):
    wait_until(lambda: len(workers(two_workers)) == 2)
    killed = workers(two_workers)[0]
    with Asking(two_workers, threads=8) as asking:
        wait_until(lambda: len(asking.got) > 40)
        psutil.Process(killed).send_signal(signal.SIGKILL)
        wait_until(lambda: replaced(two_workers, killed))
    wrong = [status for status, _ in asking.got if status not in (200, 429)]
    # 0: a client that sent on a connection between two requests in the very moment in which it closed
    assert set(wrong) <= {0, 502} and len(wrong) <= 8
    answer = httpx.post(f"{two_workers.url}/invocations", json={"inputs": ["an oven"]}, timeout=60)
    assert answer.status_code == 200


@pytest.mark.slow
def test_too_many_requests_are_refused_and_none_hangs(two_workers):
    texts = [f"the boat {i} and the sail near the old harbour" * 3 for i in range(400)]
    asked = {"inputs": texts}

    def ask(i: int) -> httpx.Response:
        return httpx.post(f"{two_workers.url}/invocations", json=asked, timeout=60)

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(ask, range(128)))
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
            assert answer.json()["error"]["type"] == "rate_limit_error"
        else:
            assert len(answer.json()["predictions"]) == 400


@pytest.mark.slow
def test_what_was_accepted_is_answered_after_sigterm(tiny_decoder, tmp_path: Path):
    save_text_model(tiny_decoder, tmp_path / "writer")
    with serving(str(tmp_path / "writer"), tmp_path) as running:
        body = {"model": "writer", "max_tokens": 40, "temperature": 2, "seed": 1}

        def ask(i: int) -> httpx.Response:
            prompts = [f"the boat {i} {j}" for j in range(20)]
            return httpx.post(f"{running.url}/v1/completions", json={**body, "prompt": prompts}, timeout=60)

        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, i) for i in range(8)]
            wait_until(lambda: running.metric("llmops_generated_tokens_total") > 0)
            while running.metric("llmops_waiting") > 100:
                time.sleep(0.01)
            running.process.terminate()
            answers = [each.result() for each in asked]
        assert {answer.status_code for answer in answers} == {200}
        assert running.process.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{running.url}/ping")
        assert "what was accepted was answered" in running.log.read_text()


BAD = {
    "no such version": (["--model", "models:/nobody/1"], "model=models:/nobody/1 is not in the tracking store"),
    "no model there": (["--model", "."], "no MLflow model lies there"),
    "no such address": (["--model", ".", "--host", "203.0.113.7"], "host=203.0.113.7, port=0: "),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_served_is_one_line(store, case):
    from click.testing import CliRunner

    from mlflow_llmops.cli import main

    given, message = BAD[case]
    result = CliRunner().invoke(main, ["serve", "--port", "0", *given])
    assert result.exit_code == 2
    said = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1 and message in said[0]


def test_a_port_that_is_taken_is_said(store, labelling):
    from click.testing import CliRunner

    from mlflow_llmops.cli import main

    port = labelling.url.rpartition(":")[2]
    result = CliRunner().invoke(main, ["serve", "--port", port, "--model", "."])
    assert result.exit_code == 2 and f"port={port}: Address already in use; choose another" in result.output
