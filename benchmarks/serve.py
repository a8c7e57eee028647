"""How many requests a second does `mlflow-llmops serve` answer, against `mlflow models serve` of the same version?

Both servers run side by side and are asked in turn, by a process of its own that keeps so many requests on their way;
all texts differ, and our cache is off. Then requests come at ten times the rate that ours can sustain. Speed does not
depend on what a network has learned, so the weights are random. In brackets the lowest and the highest repeat.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from rich.console import Console
from rich.table import Table

HEADERS = {"Content-Type": "application/json"}
SHAPES: dict[str, dict[str, int]] = {
    "default": {},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
}
CLIENTS = (1, 8, 32)
TIMES = 10
TOGETHER = 64
"""Texts of a request in the overload: so that one client process can send ten times too many."""
LIMIT = 20.0
"""Seconds that an answer may take in the overload."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="default")
    parser.add_argument("--method", default="quantize.int8_static")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.load:
        sys.stdout.write(json.dumps(asyncio.run(_load(**json.loads(given.load)))))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        version = _version(given.shape, given.method, folder)
        ours = [sys.executable, "-m", "mlflow_llmops", "serve", "--model", version, "--cache", "0"]
        plain = [sys.executable, "-m", "mlflow", "models", "serve", "-m", version, "--env-manager", "local"]
        with _process(ours, folder) as our_url, _process(plain, folder) as plain_url:
            console = Console(width=140)
            console.print(_compared(our_url, plain_url, folder, given.seconds, given.repeats))
        bounds = ["--max-waiting", "64", "--timeout", str(LIMIT)]
        with _process([*ours, *bounds], folder) as our_url:
            console.print(_overloaded(our_url, folder, given.seconds))


def _version(shape: str, method: str, folder: Path) -> str:
    import torch

    from mlflow_llmops.data.load import BUILTIN, load_data
    from mlflow_llmops.flavors import exported_text
    from mlflow_llmops.methods import table
    from mlflow_llmops.models.scratch import small_encoder

    data = load_data(BUILTIN)
    torch.manual_seed(0)
    (folder / "made").mkdir()
    made = table.build(method, {}).apply(small_encoder(data.train, data.labels, **SHAPES[shape]), data, folder / "made")
    exported_text.save_model(Path(made.folder or ""), folder / "version")
    (folder / "texts.json").write_text(json.dumps(list(data.train.texts)))
    return str(folder / "version")


@contextmanager
def _process(command: list[str], folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = folder / f"{port}.log"
    with log.open("w") as file:
        started = subprocess.Popen(
            [*command, "--port", str(port)],
            env={**os.environ, "PATH": path},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/ping", timeout=5).close()
                break
            except OSError:
                if started.poll() is not None:
                    raise SystemExit(log.read_text()[-2000:]) from None
                time.sleep(0.2)
        yield url
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def _asked(url: str, folder: Path, **how: Any) -> dict[str, Any]:
    """What the process that asks has seen."""
    given = json.dumps({"url": url, "texts": str(folder / "texts.json"), **how})
    done = subprocess.run([sys.executable, __file__, "--load", given], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def _load(url: str, texts: str, seconds: float, first: int, clients: int = 0, rate: float = 0, together: int = 1):
    """Keep `clients` requests on their way, or send `rate` of them a second whatever comes back."""
    lines = json.loads(Path(texts).read_text())
    sent, seen, taken = first, Counter[str](), []

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal sent
        # no text twice: its number stands in it
        batch = [f"{sent + i} {lines[(sent + i) % len(lines)]}" for i in range(together)]
        sent += together
        start = time.perf_counter()
        try:
            async with session.post(f"{url}/invocations", data=json.dumps({"inputs": batch}), headers=HEADERS) as got:
                await got.read()
                seen[str(got.status)] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            seen[type(error).__name__] += 1
        taken.append(time.perf_counter() - start)

    async def client(session: aiohttp.ClientSession, end: float) -> None:
        while time.perf_counter() < end:
            await ask(session)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as session:
        await ask(session)  # the connection, and what a first text sets up
        seen.clear()
        taken.clear()
        start = time.perf_counter()
        if clients:
            await asyncio.gather(*(client(session, start + seconds) for _ in range(clients)))
        else:
            tasks = []
            for i in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, start + i / rate - time.perf_counter()))
                tasks.append(asyncio.create_task(ask(session)))
            await asyncio.gather(*tasks)
        spent = time.perf_counter() - start
    milliseconds = np.array(taken) * 1000
    p50, p95 = np.percentile(milliseconds, [50, 95]).tolist()
    return {
        "per_second": seen["200"] / spent,
        "p50": p50,
        "p95": p95,
        "longest": float(milliseconds.max()),
        "seen": dict(seen),
        "sent": sent,
    }


def _compared(ours: str, plain: str, folder: Path, seconds: float, repeats: int) -> Table:
    first = 0
    shown = Table(title="mlflow-llmops serve against mlflow models serve")
    for column in ("clients", "ours/s", "plain/s", "times the requests", "ours p95 ms", "plain p95 ms", "p95 ratio"):
        shown.add_column(column)
    shown.add_column("ours later by, median ms")
    for clients in CLIENTS:
        runs: dict[str, list[dict[str, Any]]] = {ours: [], plain: []}
        for repeat in range(repeats + 1):  # the first warms up
            for url, kept in runs.items():
                found = _asked(url, folder, seconds=seconds if repeat else 1, first=first, clients=clients)
                first = found["sent"]
                if set(found["seen"]) != {"200"}:
                    raise SystemExit(f"{url} answered {found['seen']} at {clients} clients")
                kept += [found] * (repeat > 0)
        rates, p95s, p50s = (
            {url: np.array([run[name] for run in kept]) for url, kept in runs.items()}
            for name in ("per_second", "p95", "p50")
        )
        shown.add_row(
            str(clients),
            *(f"{np.median(rates[url]):,.0f}" for url in (ours, plain)),
            _ranged(rates[ours] / rates[plain]),
            *(f"{np.median(p95s[url]):.1f}" for url in (ours, plain)),
            _ranged(p95s[ours] / p95s[plain]),
            _ranged(p50s[ours] - p50s[plain]),
        )
    return shown


def _overloaded(url: str, folder: Path, seconds: float) -> Table:
    calm = _asked(url, folder, seconds=seconds, first=10**6, clients=8, together=TOGETHER)
    rate = TIMES * calm["per_second"]
    found = _asked(url, folder, seconds=seconds, first=10**7, rate=rate, together=TOGETHER)
    after = _asked(url, folder, seconds=seconds, first=10**8, clients=8, together=TOGETHER)
    shown = Table(title=f"requests of {TOGETHER} texts, {TIMES} times what is sustained; {LIMIT:g} s allowed")
    for column in ("", "answered/s", "seen", "longest s"):
        shown.add_column(column)
    for label, run in {"8 clients": calm, f"{rate:,.0f} sent a second": found, "8 clients again": after}.items():
        seen = ", ".join(f"{name}: {count}" for name, count in run["seen"].items())
        shown.add_row(label, f"{run['per_second']:.1f}", seen, f"{run['longest'] / 1000:.2f}")
    return shown


def _ranged(values: np.ndarray) -> str:
    return f"{np.median(values):.2f} [{values.min():.2f}, {values.max():.2f}]"


if __name__ == "__main__":
    main()
