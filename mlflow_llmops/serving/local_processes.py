"""A server's process on this machine: started, found again by whoever comes later, and ended."""

import math
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import psutil
import requests

from mlflow_llmops.errors import ConfigError, ModelError

SERVE = ("-m", "mlflow_llmops", "serve")
MARK = "LLMOPS_DEPLOYMENT"
"""The variable that every process of a server has in its environment, whatever became of the one that we started."""
START_SECONDS = "start_seconds"
"""The one setting that is ours: how long a server may take until it answers. Others are options of SERVE."""
OURS = {"model", "port_file"}
"""Options of SERVE that we give ourselves."""
PATIENCE = 300.0
TO_END = 80.0
"""Seconds that a server has to answer what it accepted, as long as it would wait itself."""
SAME_START = 2.0
"""Seconds by which a process's start may differ between two looks: the clock of the machine may be set."""
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Server:
    """One start of a server. A process is its own only with the same start, since pids come again."""

    id: str
    model: str
    host: str
    port: int
    pid: int
    started: float
    """Seconds since 1970."""
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        host = EVERYWHERE.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def status(self) -> str:
        """running, silent (the process is there and does not answer) or stopped."""
        return "stopped" if not self.alive else "running" if pings(self.address) else "silent"

    @property
    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < SAME_START
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def command_of(model: str, config: Mapping[str, str]) -> list[str]:
    """What serves `model`; the settings are options of that command, which names those that it does not know."""
    if taken := OURS & {name.replace("-", "_") for name in config}:
        raise ConfigError(f"{taken.pop()} is no setting: the model is -m, and the port is what `get` shows")
    options = [word for name, value in config.items() if name != START_SECONDS for word in (_option(name), str(value))]
    return [sys.executable, "-W", "ignore", *SERVE, "--model", model, *options]


def environment_of(server_id: str) -> dict[str, str]:
    """Ours, with the stores that this process was told of in Python, and the mark."""
    stores = {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "MLFLOW_REGISTRY_URI": mlflow.get_registry_uri()}
    return {**os.environ, **stores, MARK: server_id}


def start(server_id: str, model: str, config: Mapping[str, str], folder: Path) -> Server:
    """Start a server that outlives this process, and wait until it answers; `folder` gets its log.

    Raises ModelError, with what the server said last, where it does not come to answer; then nothing is left of it.
    """
    patience, log, port_file = _seconds(config), log_of(folder, server_id), folder / f"{server_id}.port"
    command = [*command_of(model, {"host": "127.0.0.1", "port": "0", **config}), "--port-file", str(port_file)]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            env=environment_of(server_id),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        started, host = psutil.Process(process.pid).create_time(), config.get("host", "127.0.0.1")
        deadline = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < deadline:
            if port_file.is_file():
                port = int(port_file.read_text(encoding="utf-8"))
                server = Server(server_id, model, host, port, process.pid, started, dict(config))
                if pings(server.address):
                    return server
            time.sleep(0.1)
    except BaseException:  # Ctrl-C while it loads
        stop(server_id, seconds=0)
        raise
    finally:
        port_file.unlink(missing_ok=True)
    code = process.poll()
    stop(server_id, seconds=0)
    how = f"does not answer within {patience:g} seconds" if code is None else "is not served"
    raise ModelError(f"{model} {how}: {last_words(log)} (all it said: {log})")


def stop(server_id: str, seconds: float = TO_END) -> None:
    """End all processes of a server; those that still run after `seconds` are killed."""
    ours = _processes(server_id)
    inside = {process.pid for process in ours}
    for process in ours:  # the first of them tells its workers itself
        if seconds and process.ppid() not in inside:
            process.terminate()
    for process in psutil.wait_procs(ours, seconds)[1] if seconds else ours:
        process.kill()
    left = _processes(server_id)  # what was born meanwhile
    for process in left:
        process.kill()
    psutil.wait_procs([*ours, *left], 10)


def pings(address: str) -> bool:
    """Whether a server answers there that it can score."""
    try:
        return requests.get(f"{address}/ping", timeout=2).ok
    except requests.RequestException:
        return False


def log_of(folder: Path, server_id: str) -> Path:
    return folder / f"{server_id}.log"


def new_id() -> str:
    """Sorts by time."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"


def last_words(log: Path) -> str:
    """The error that a log ends with, or its last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    return (told or lines or ["it said nothing"])[-1][:500]


def _processes(server_id: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == server_id:
                found.append(process)
        except psutil.Error:  # another user's, or gone
            continue
    return found


def _seconds(config: Mapping[str, str]) -> float:
    given = config.get(START_SECONDS, PATIENCE)
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:  # NaN is in no order
        raise ConfigError(f"{START_SECONDS}={given} is no number of seconds above 0")
    return seconds


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
