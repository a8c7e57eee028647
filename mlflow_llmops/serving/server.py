"""Start a server on a socket: one process, or workers with uvicorn's supervisor, which replaces those that die."""

import ipaddress
import logging
import os
import resource
import signal
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from mlflow_llmops.errors import ConfigError, ModelError
from mlflow_llmops.serving.held import ROOM, Listening
from mlflow_llmops.serving.log import show_lines
from mlflow_llmops.serving.settings import METRICS, Settings

log = logging.getLogger(__name__)
BACKLOG = 2048
HEALTH_SECONDS = 60
"""A worker that does not answer its supervisor for so long is replaced: importing a runtime may hold it up."""


def serve(settings: Settings, port_file: Path | None = None) -> None:
    """Until SIGTERM or Ctrl-C: then no connection is accepted any more, and what was accepted is answered.

    Raises ConfigError for an address that cannot be had, ModelError for a model that does not load.
    """
    settings.to_environment()
    listening = _listen(settings)
    host, port = listening.getsockname()[:2]
    show_lines()
    _widen()
    if not _is_loopback(host) and not settings.key:
        log.warning("%s is open to the network and %s is empty: anybody may ask", host, settings.key_variable)
    before = [(number, signal.signal(number, _nothing)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        if settings.workers > 1:
            _supervise(settings, listening, lambda: _say(port_file, host, port))
        else:
            _run(settings, listening, lambda: _say(port_file, host, port))
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        listening.close()
        os.environ.pop(METRICS, None)


def _run(settings: Settings, listening: socket.socket, ready: Any) -> None:
    from mlflow_llmops.serving.app import create
    from mlflow_llmops.serving.version import load_version

    app = create(settings, load_version(settings.model))
    ready()
    uvicorn.Server(uvicorn.Config(app, **_options(settings))).run(sockets=[listening])


def _supervise(settings: Settings, listening: socket.socket, ready: Any) -> None:
    from mlflow_llmops.tracking.references import pinned

    pinned(settings.model)  # a name that is not there is told in one line
    config = uvicorn.Config(
        "mlflow_llmops.serving.app:create", factory=True, workers=settings.workers, **_options(settings)
    )
    with TemporaryDirectory(prefix="llmops-serve-") as folder:
        os.environ[METRICS] = folder  # before prometheus_client is imported, here and in the workers
        stand_in = _stand_in(Path(folder), settings)
        ready()
        supervisor = Supervisor(config, sockets=[listening])
        supervisor.run()
        if stand_in:
            stand_in.stop()
    if any(process.exitcode == uvicorn.config.STARTUP_FAILURE for process in supervisor.processes):
        raise ModelError(f"model={settings.model} does not load in a worker; the lines above say why")


class Supervisor(Multiprocess):
    """uvicorn's, which sees at once that a worker died while it was asked whether it lives.

    uvicorn keeps the worker's end of the pipe open beside the worker, so that the pipe of a dead one does not end, and
    a worker that was killed between question and answer would be missed for HEALTH_SECONDS.
    """

    def init_processes(self) -> None:
        super().init_processes()
        self._let_go()

    def keep_subprocess_alive(self) -> None:
        super().keep_subprocess_alive()
        self._let_go()

    def _let_go(self) -> None:
        for process in self.processes:
            process.child_conn.close()


def _stand_in(folder: Path, settings: Settings) -> Any:
    """None where this system has no Unix sockets, or only for shorter paths."""
    from mlflow_llmops.serving.stand_in import StandIn

    try:
        return StandIn(folder, settings.head_seconds, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    except OSError as error:
        log.warning("if a worker is killed, the connections that it holds just close: %s", error)
        return None


def _widen() -> None:
    """As many descriptors as this process may have: a connection is one, and the usual bound is below ours."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ROOM if hard == resource.RLIM_INFINITY else min(ROOM, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _options(settings: Settings) -> dict[str, Any]:
    return {
        "access_log": False,
        "log_level": "info",
        "server_header": False,
        "lifespan": "on",
        "http": "mlflow_llmops.serving.connection:Connection",
        "ws": "none",  # what is upgraded would leave it
        "timeout_worker_healthcheck": HEALTH_SECONDS,
        # every request has ended by then
        "timeout_graceful_shutdown": int(settings.timeout + settings.body_seconds) + 1,
    }


def _listen(settings: Settings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        # the protocol named: asyncio sets TCP_NODELAY only then, and without it a lone client waits 40 ms
        listening = Listening(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
        listening.listen(BACKLOG)  # who reads the port file may connect at once
    except OSError as error:
        raise ConfigError(
            f"host={settings.host}, port={settings.port}: {error.strerror or error}; choose another, or port=0 for a "
            "free one"
        ) from error
    listening.set_inheritable(True)
    return listening


def _say(port_file: Path | None, host: str, port: int) -> None:
    shown = f"[{host}]" if ":" in host else host
    log.info("http://%s:%d/v1 answers OpenAI's clients, /invocations MLflow's", shown, port)
    if port_file is not None:
        written = port_file.with_name(port_file.name + ".new")
        written.write_text(str(port), encoding="utf-8")
        written.replace(port_file)  # whoever waits for it never sees half of it


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback


def _nothing(number: int, frame: Any) -> None:
    """uvicorn raises the signal that ended it once more when all is answered: that is no failure."""
