"""What gathering gives: `mlflow models serve` with it and without it, the same model, the same requests, in turn.

Real servers (`--env-manager local`), 32 clients that each ask for one text at a time over a connection of their own,
and then one client alone. Every text is asked once, and nothing is remembered (`memo_rows` 0): what a memo gives hangs
on how often texts come again. The default model has MiniLM's shape (6 layers, 384 wide) and random weights, in torch
and as an int8 graph: speed does not depend on what a network has learned. `--model` takes the folder of a logged
version instead. The last row is a model that answers a constant: what MLflow's own path bounds.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from itertools import cycle
from pathlib import Path
from threading import Barrier

import mlflow.pyfunc
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from mlflow_llmops.data.load import BUILTIN, load_data
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.engines import default_threads
from mlflow_llmops.flavors.by_kind import save_text_model
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.measure.intervals import quantile_interval
from mlflow_llmops.methods import table
from mlflow_llmops.models.scratch import small_encoder
from mlflow_llmops.names import HARDWARE
from mlflow_llmops.tracking.signature import SIGNATURES

WAYS = {"alone": {"gather": False, "memo_rows": 0}, "gathered": {"gather": True, "memo_rows": 0}}
SHAPE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
CONSTANT = """
import mlflow
import pandas as pd


class Constant(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return pd.DataFrame({"label": ["a"] * len(model_input), "score": [0.5] * len(model_input)})


mlflow.models.set_model(Constant())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", help="folder of a logged version; without it, the default encoder twice")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=480, help="of all clients, in each round")
    parser.add_argument("--singles", type=int, default=40, help="of the lone client, in each round")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers end with it
    data = load_data(BUILTIN)
    texts = [*data.test.texts, *data.train.texts]
    folders = {"given": Path(given.model)} if given.model else defaults(data, Path(tempfile.mkdtemp()))
    shown = Table(title=f"{given.clients} clients of mlflow models serve; {hardware_tags()[HARDWARE]}")
    for column in (
        "model",
        "requests/s alone",
        "gathered",
        "times",
        "p95 ms alone",
        "gathered",
        "lone client, ms",
    ):
        shown.add_column(column)
    folders["a constant"] = constant(Path(tempfile.mkdtemp()) / "constant")
    for name, folder in folders.items():
        shown.add_row(name, *measured(folder, texts, given))
    Console(width=170).print(shown)


def defaults(data: Splits, folder: Path) -> dict[str, Path]:
    torch.manual_seed(0)
    encoder = small_encoder(data.train, data.labels, **SHAPE)
    (folder / "made").mkdir()
    quantized = table.build("quantize.int8_static", {}).apply(encoder, data, folder / "made")
    saved = {"torch fp32": encoder, "OpenVINO int8 static": quantized}
    for name, model in saved.items():
        save_text_model(model, folder / name)
    return {name: folder / name for name in saved}


def constant(folder: Path) -> Path:
    """A model that costs nothing, so that what is left is MLflow's."""
    code = folder.with_suffix(".py")
    code.write_text(CONSTANT)
    signature = SIGNATURES["text-classification"]
    mlflow.pyfunc.save_model(str(folder), python_model=str(code), signature=signature, pip_requirements=["mlflow"])
    return folder


def measured(folder: Path, texts: Sequence[str], given: argparse.Namespace) -> list[str]:
    """A row of the table: the medians over the rounds, and of the paired ratio or difference with its interval."""
    taken = cycle(texts)
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    tails: dict[str, list[float]] = {way: [] for way in WAYS}
    lone: dict[str, list[float]] = {way: [] for way in WAYS}
    with ExitStack() as stack:
        ports = {}
        for way, config in WAYS.items():
            ports[way] = stack.enter_context(server(folder, config))
            asked(ports[way], [next(taken) for _ in range(4 * given.clients)], given.clients)
        for turn in range(given.rounds):
            batch = [next(taken) for _ in range(given.requests)]
            single = [next(taken) for _ in range(given.singles)]
            for way in sorted(WAYS, reverse=bool(turn % 2)):
                seconds, each = asked(ports[way], batch, given.clients)
                rates[way].append(len(batch) / seconds)
                tails[way].append(float(np.quantile(each, 0.95)) * 1000)
                lone[way].append(float(np.median(asked(ports[way], single, 1)[1])) * 1000)
    by_way = {way: (np.array(rates[way]), np.array(tails[way]), np.array(lone[way])) for way in WAYS}
    before, after = by_way["alone"], by_way["gathered"]
    return [
        f"{np.median(before[0]):.0f}",
        f"{np.median(after[0]):.0f}",
        str(quantile_interval(after[0] / before[0])),
        f"{np.median(before[1]):.1f}",
        f"{np.median(after[1]):.1f}",
        f"{np.median(after[2] - before[2]):+.2f} (on {np.median(before[2]):.2f})",
    ]


@contextmanager
def server(folder: Path, config: dict[str, object]) -> Iterator[int]:
    """A real server of the model in `folder`, on a port that nobody has, ended with the block."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "MLFLOW_PYFUNC_INFERENCE_CONFIG": json.dumps(config)}
    environ.setdefault("OMP_NUM_THREADS", str(default_threads()))
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    process = subprocess.Popen(
        [*command, "-m", str(folder), "-p", str(port)],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError(f"the server of {folder} ended with {process.returncode}")
            try:
                connection = HTTPConnection("127.0.0.1", port, timeout=60)
                connection.request("GET", "/ping")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def asked(port: int, texts: Sequence[str], clients: int) -> tuple[float, list[float]]:
    """Seconds in all, and of each request; every client has one connection and asks again when it has its answer."""
    together = Barrier(clients)

    def client(number: int) -> tuple[float, float, list[float]]:
        connection = HTTPConnection("127.0.0.1", port, timeout=120)
        connection.connect()
        bodies = [json.dumps({"inputs": [text]}) for text in texts[number::clients]]
        together.wait()
        begin, each = time.perf_counter(), []
        for body in bodies:
            start = time.perf_counter()
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
            if response.status != 200:
                raise RuntimeError(f"HTTP {response.status}: {answer[:300]!r}")
            each.append(time.perf_counter() - start)
        connection.close()
        return begin, time.perf_counter(), each

    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(client, range(clients)))
    seconds = max(end for _, end, _ in found) - min(begin for begin, _, _ in found)
    return seconds, [one for _, _, each in found for one in each]


if __name__ == "__main__":
    main()
