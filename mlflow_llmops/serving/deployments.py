"""Deployments of this machine by name: what runs is written down, so that a crash of any part can be mended."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from filelock import FileLock, Timeout
from mlflow.deployments import PredictionsResponse
from mlflow.utils.proto_json_utils import dump_input_data
from pydantic import TypeAdapter

from mlflow_llmops.errors import ConfigError
from mlflow_llmops.serving import local_processes
from mlflow_llmops.serving.local_processes import Server
from mlflow_llmops.serving.settings import KEY_VARIABLE

PLACE = "LLMOPS_DEPLOYMENTS"
"""The variable that moves the records and logs elsewhere."""
RECORD = "deployment.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LOCK_SECONDS = 2.0
ANSWER_SECONDS = 90.0
"""Longer than a server lets an answer take."""
KEPT_LOGS = 5


@dataclass(frozen=True)
class Record:
    """What is written down of a deployment."""

    server: Server | None = None
    """The one that answers; None while the first one starts."""
    leaving: tuple[str, ...] = ()
    """Starts that must not run: they are ended by whoever finds them here."""


def create(name: str, model: str, config: Mapping[str, str]) -> dict[str, Any]:
    """Serve `model` under a name that is free, and return when it answers.

    Raises ConfigError for a name in use, ModelError for a model that does not come to answer; then nothing is left.
    """
    with _locked(name) as folder:
        before = _mended(folder)
        if before.server:
            raise ConfigError(
                f"name={name} is in use: it serves {before.server.model} ({before.server.status}); choose another, or "
                "update or delete it"
            )
        try:
            server = _started(folder, before, model, config)
        except BaseException:
            (folder / RECORD).unlink(missing_ok=True)  # the log stays, to be read
            raise
        _write(folder, Record(server))
        return _described(folder, server)


def update(name: str, model: str | None, config: Mapping[str, str]) -> dict[str, Any]:
    """Start a server beside the one that answers, and end that one when the new one answers too.

    Without a model it is the same one again. The port is another one, unless the old server had gone already. Raises
    ModelError where the new one does not come to answer; then the old one goes on.
    """
    with _locked(name) as folder:
        before = _mended(folder)
        old = _server(name, before)
        kept = dict(old.config)
        if old.alive:
            kept.pop("port", None)
        else:
            local_processes.stop(old.id)  # workers that outlived it hold the port
        try:
            server = _started(folder, before, model or old.model, {**kept, **config})
        except BaseException:
            _write(folder, before)
            raise
        _write(folder, Record(server, (old.id,)))
        local_processes.stop(old.id)
        _write(folder, Record(server))
        return _described(folder, server)


def delete(name: str) -> None:
    """End the server and forget it; nothing happens where there is none."""
    with _locked(name) as folder:
        record = _mended(folder)
        if record.server:
            _write(folder, Record(None, (record.server.id,)))
            _mended(folder)
        shutil.rmtree(folder)


def get(name: str) -> dict[str, Any]:
    """Raises ConfigError where there is no such deployment."""
    folder = _folder(name)
    return _described(folder, _server(name, _read(folder)))


def every() -> list[dict[str, Any]]:
    """All of them, by name."""
    records = {path.parent: _read(path.parent) for path in sorted(_place().glob(f"*/{RECORD}"))}
    return [_described(folder, record.server) for folder, record in records.items() if record.server]


def predict(name: str, inputs: Any) -> PredictionsResponse:
    """What the deployment answers to a table, a list, or a body as /invocations takes it.

    Raises ConfigError, with the server's own words, for an input that it refuses or where it does not answer.
    """
    server = _server(name, _read(_folder(name)))
    key = os.environ.get(server.config.get("key_variable", KEY_VARIABLE), "")
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    body = json.dumps(inputs) if isinstance(inputs, dict) else dump_input_data(inputs)
    try:
        answer = requests.post(f"{server.address}/invocations", body, headers=headers, timeout=ANSWER_SECONDS)
    except requests.RequestException as error:
        raise ConfigError(
            f"name={name} does not answer at {server.address} ({server.status}); "
            f"`mlflow deployments update -t llmops --name {name}` starts it again"
        ) from error
    if not answer.ok:
        raise ConfigError(f"name={name} answers {answer.status_code}: {' '.join(answer.text.split())[:500]}")
    return PredictionsResponse.from_json(answer.text)


def _started(folder: Path, before: Record, model: str, config: Mapping[str, str]) -> Server:
    """The start is written down before it is one. A path is made absolute: the next command may be called elsewhere."""
    if not model:
        raise ConfigError("the model is empty; give models:/name/3, models:/name@alias, runs:/id/model or a folder")
    model = str(Path(model).resolve()) if "://" not in model and Path(model).exists() else model
    server_id = local_processes.new_id()
    _write(folder, replace(before, leaving=(server_id,)))
    for old in sorted(folder.glob("*.log"))[:-KEPT_LOGS]:
        old.unlink()
    return local_processes.start(server_id, model, config, folder)


def _mended(folder: Path) -> Record:
    """The record, after ending what a command that died has left."""
    record = _read(folder)
    for server_id in record.leaving:
        local_processes.stop(server_id)
    return replace(record, leaving=())


def _server(name: str, record: Record) -> Server:
    if record.server is None:
        known = ", ".join(each["name"] for each in every()) or "none"
        raise ConfigError(f"name={name}: there is no such deployment; those of this machine: {known}")
    return record.server


def _described(folder: Path, server: Server) -> dict[str, Any]:
    return {
        "name": folder.name,
        "model_uri": server.model,
        "flavor": "python_function",
        "status": server.status,
        "address": server.address,
        "pid": server.pid,
        "started": datetime.fromtimestamp(server.started, UTC).isoformat(timespec="seconds"),
        "log": str(local_processes.log_of(folder, server.id)),
        "config": dict(server.config),
    }


def _place() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(PLACE) or cache / "mlflow-llmops" / "deployments").absolute()


def _folder(name: str) -> Path:
    if not NAME.fullmatch(name or ""):
        raise ConfigError(f"name={name}: give up to 100 letters, digits, dots, dashes and underscores")
    return _place() / name


@contextmanager
def _locked(name: str) -> Iterator[Path]:
    """One command at a time changes a deployment; the lock ends with its process."""
    folder = _folder(name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_name(f".{name}.lock"), timeout=LOCK_SECONDS):
            folder.mkdir(mode=0o700, exist_ok=True)
            yield folder
    except Timeout as error:
        raise ConfigError(f"name={name}: another command is changing it; try again when that one is done") from error


def _read(folder: Path) -> Record:
    path = folder / RECORD
    try:
        return TypeAdapter(Record).validate_json(path.read_bytes())
    except FileNotFoundError:
        return Record()
    except (OSError, ValueError) as error:
        said = f"{path} is no record of a deployment: {' '.join(str(error).split())[:200]}"
        raise ConfigError(f"{said}; move it away and create it anew") from error


def _write(folder: Path, record: Record) -> None:
    """Whole or not at all, also where the machine stops in the middle."""
    fresh = folder / f"{RECORD}.new"
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(asdict(record), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(folder / RECORD)
