"""A real `mlflow models serve` holds many calls at once, shares their batches, and refuses what is too many."""

import asyncio
import json
import os
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from mlflow_llmops.flavors._server import APP, widen_server
from mlflow_llmops.flavors.by_kind import save_text_model
from tests.serving_process import free_port, process

CLIENTS = 24


def together(calls: int) -> int:
    """How many of them run at once in the threads of a loop."""
    inside, most, lock = 0, 0, threading.Lock()
    everyone = threading.Barrier(calls + 1)

    def call():
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        with suppress(threading.BrokenBarrierError):
            everyone.wait(0.5)
        with lock:
            inside -= 1

    async def main():
        widen_server(calls)
        await asyncio.gather(*(asyncio.to_thread(call) for _ in range(calls)))

    asyncio.run(main())
    return most


def test_only_mlflows_server_is_widened(monkeypatch):
    usual = min(32, (os.cpu_count() or 1) + 4)
    assert together(usual + 20) == usual
    monkeypatch.setitem(sys.modules, APP, sys)
    assert together(usual + 20) == usual + 20
    widen_server(5)  # where no loop runs there is nothing to widen


@pytest.mark.slow
def test_a_real_server_answers_each_client_its_own_and_refuses_beyond_the_queue(tiny_exported, tiny_texts, tmp_path):
    save_text_model(tiny_exported, tmp_path / "model")
    expected = dict(zip(tiny_texts.test.texts, labels(tiny_exported, tiny_texts.test.texts), strict=True))
    texts = list(expected)[:CLIENTS]
    with served(tmp_path, queue=128) as ask, ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(ask, texts * 5))
        assert answers == [(200, expected[text]) for text in texts * 5]
    with served(tmp_path, queue=1) as ask, ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(ask, texts * 20))
        status = {code for code, _ in answers}
        assert status == {200, 503}, "some were refused, and no other way"
        assert all(
            label == expected[text] for (code, label), text in zip(answers, texts * 20, strict=True) if code == 200
        )
        assert "overloaded: 1 calls wait" in next(said for code, said in answers if code == 503)
        assert ask(texts[0]) == (200, expected[texts[0]])


def labels(model, texts):
    from mlflow_llmops.flavors import exported_text

    return exported_text.ExportedText(model.folder).predict(list(texts))["label"]


class served:
    """A server without memory of texts; gives a function from a text to the status and the label, or the error."""

    def __init__(self, folder: Path, queue: int) -> None:
        os.environ["MLFLOW_PYFUNC_INFERENCE_CONFIG"] = json.dumps({"memo_rows": 0, "queue": queue})
        self.address = f"http://127.0.0.1:{(port := free_port())}"
        command = ["mlflow", "models", "serve", "-m", str(folder / "model"), "--env-manager", "local", "-p", str(port)]
        self.running = process(command, f"{self.address}/ping", folder / "serve.log")

    def __enter__(self):
        self.running.__enter__()
        return self.ask

    def __exit__(self, *error):
        os.environ.pop("MLFLOW_PYFUNC_INFERENCE_CONFIG")
        self.running.__exit__(*error)

    def ask(self, text: str) -> tuple[int, str]:
        body = json.dumps({"inputs": [text]}).encode()
        request = urllib.request.Request(f"{self.address}/invocations", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return 200, json.load(answer)["predictions"][0]["label"]
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
