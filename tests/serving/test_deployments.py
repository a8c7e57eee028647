"""`mlflow deployments -t llmops`: real servers that outlive their parent, and what is said when they cannot."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest
import requests
from filelock import FileLock
from mlflow.deployments import get_deploy_client
from mlflow.exceptions import MlflowException

from mlflow_llmops.flavors.by_kind import save_text_model
from mlflow_llmops.serving import local_processes
from tests.serving_process import free_port, hears_ctrl_c

slow = pytest.mark.slow
TABLE = pd.DataFrame({"text": ["the oven and the flour", "a boat near the harbour"]})


@pytest.fixture
def client(store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    monkeypatch.setenv("LLMOPS_DEPLOYMENTS", str(store / "deployments"))
    client = get_deploy_client("llmops")
    yield client
    for each in client.list_deployments():
        client.delete_deployment(each["name"])


@pytest.fixture
def model(store: Path, tiny_exported) -> str:
    save_text_model(tiny_exported, store / "tiny")
    return str(store / "tiny")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlflow", "deployments", *words, "-t", "llmops"],
        capture_output=True,
        text=True,
        timeout=300,
    )


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@slow
def test_a_deployment_outlives_the_command_and_keeps_answering_until_a_better_one_does(client, model, store):
    made = command("create", "-m", "tiny", "--name", "x")
    assert made.returncode == 0 and "deployment x is created" in made.stdout, made.stderr
    first = client.get_deployment("x")
    assert first["status"] == "running" and first["model_uri"] == model
    answer = client.predict("x", TABLE)
    labels = list(answer.get_predictions()["label"])
    assert len(labels) == 2 and set(labels) <= {"kitchen", "sea", "weather"}
    again = client.predict("x", {"inputs": list(TABLE["text"])})
    assert list(again.get_predictions()["label"]) == labels
    with pytest.raises(MlflowException, match="name=x answers 4"):
        client.predict("x", {"nonsense": 1})

    with pytest.raises(MlflowException, match=f"^name=x is in use: it serves {model}"):
        client.create_deployment("x", model)
    refused = command("update", "-m", str(store / "nothing"), "--name", "x")
    assert refused.returncode == 1 and "is not served" in refused.stderr and "Traceback" not in refused.stderr
    assert client.get_deployment("x") == first
    assert list(client.predict("x", TABLE).get_predictions()["label"]) == labels

    (store / "other").symlink_to(store / "tiny")
    client.update_deployment("x", str(store / "other"), config={"served_as": "y"})
    second = client.get_deployment("x")
    assert second["status"] == "running" and second["address"] != first["address"] and gone(first["pid"])
    assert "y" in requests.get(f"{second['address']}/v1/models", timeout=10).text
    assert client.list_deployments() == [second]
    client.delete_deployment("x")
    client.delete_deployment("x")
    assert client.list_deployments() == [] and gone(second["pid"])
    assert list((store / "deployments").glob("x/*")) == []


@slow
def test_after_a_crash_of_the_server_or_of_a_command_the_next_one_mends_it(client, model, store):
    port = str(free_port())
    first = client.create_deployment("x", model, config={"port": port})
    assert first["address"] == f"http://127.0.0.1:{port}"
    with pytest.raises(MlflowException, match=f"port={port}: Address already in use; choose another"):
        client.create_deployment("z", model, config={"port": port})
    assert [each["name"] for each in client.list_deployments()] == ["x"]
    os.kill(first["pid"], signal.SIGKILL)
    psutil.wait_procs([psutil.Process(first["pid"])], 10)
    assert client.get_deployment("x")["status"] == "stopped"
    with pytest.raises(MlflowException, match="update -t llmops --name x` starts it again"):
        client.predict("x", TABLE)

    orphan = subprocess.Popen(["sleep", "600"], env={**os.environ, local_processes.MARK: "orphan"})
    record = store / "deployments" / "x" / "deployment.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "leaving": ["orphan"]}))
    client.update_deployment("x")
    second = client.get_deployment("x")
    assert second["status"] == "running" and second["address"] == first["address"]
    assert gone(orphan.pid)


def test_a_pid_that_came_again_is_not_ours(client, store):
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        server = {**SERVER, "port": free_port(), "pid": stranger.pid, "started": 1000.0}
        (store / "deployments" / "x").mkdir(parents=True)
        record = {"server": server, "leaving": []}
        (store / "deployments" / "x" / "deployment.json").write_text(json.dumps(record))
        assert client.get_deployment("x")["status"] == "stopped"
        client.delete_deployment("x")
        assert client.list_deployments() == [] and stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_mistakes_are_told_without_starting_anything(client, store):
    for call, told in (
        (lambda: client.create_deployment("../x", "m"), "name=../x: give up to 100"),
        (lambda: client.create_deployment("x", "m", flavor="sklearn"), "flavor=sklearn"),
        (lambda: client.create_deployment("x", "m", endpoint="e"), "endpoint=e"),
        (lambda: client.create_deployment("x", "m", config={"start_seconds": "soon"}), "start_seconds=soon"),
        (lambda: client.create_deployment("x", "m", config={"start_seconds": "-1"}), "start_seconds=-1 is no number"),
        (lambda: client.create_deployment("x", "m", config={"start_seconds": "nan"}), "start_seconds=nan is no number"),
        (lambda: client.create_deployment("x", "m", config={"model": "n"}), "^model is no setting"),
        (lambda: client.create_deployment("x", "m", config={"port-file": "n"}), "^port_file is no setting"),
        (lambda: client.create_deployment("x", ""), "^the model is empty"),
        (lambda: client.update_deployment("x"), "there is no such deployment; those of this machine: none"),
        (lambda: client.predict("x", TABLE), "there is no such deployment"),
        (lambda: client.get_deployment("x"), "there is no such deployment"),
    ):
        with pytest.raises(MlflowException, match=told):
            call()
    with FileLock(store / "deployments" / ".x.lock"):
        code = "from mlflow_llmops.serving import deployments; deployments.create('x', 'm', {})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "name=x: another command is changing it" in done.stderr
    (store / "deployments" / "x").mkdir(exist_ok=True)


SERVER = {"id": "1", "model": "m", "host": "127.0.0.1", "port": 1, "pid": 1, "started": 1.0, "config": {}}
NO_RECORDS = {
    "half": '{"server": {"id": "1", "mod',
    "empty": "",
    "another kind": "[]",
    "a pid that is none": json.dumps({"server": {**SERVER, "pid": "x"}, "leaving": []}),
    "no port": json.dumps({"server": {k: v for k, v in SERVER.items() if k != "port"}, "leaving": []}),
    "leaving": json.dumps({"server": SERVER, "leaving": 3}),
}


@pytest.mark.parametrize("case", NO_RECORDS)
def test_a_record_that_is_none_is_one_line_whatever_is_asked(client, store, case):
    record = store / "deployments" / "x" / "deployment.json"
    record.parent.mkdir(parents=True)
    record.write_text(NO_RECORDS[case])
    for call in (
        lambda: client.get_deployment("x"),
        client.list_deployments,
        lambda: client.create_deployment("x", "m"),
        lambda: client.update_deployment("x"),
        lambda: client.delete_deployment("x"),
        lambda: client.predict("x", TABLE),
    ):
        with pytest.raises(MlflowException, match="is no record of a deployment") as told:
            call()
        assert "\n" not in str(told.value) and str(told.value).endswith("move it away and create it anew")
    assert record.read_text() == NO_RECORDS[case]
    record.unlink()


def test_what_a_write_that_stopped_has_left_is_no_record(client, store):
    (store / "deployments" / "x").mkdir(parents=True)
    (store / "deployments" / "x" / "deployment.json.new").write_text('{"server": {"id"')
    assert client.list_deployments() == []
    client.delete_deployment("x")
    assert not (store / "deployments" / "x").exists()


@slow
def test_run_local_serves_until_ctrl_c(client, model):
    port = free_port()
    words = ["run-local", "-m", model, "--name", "x", "-C", f"port={port}", "-t", "llmops"]
    running = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "deployments", *words], start_new_session=True, preexec_fn=hears_ctrl_c
    )
    try:
        while not local_processes.pings(f"http://127.0.0.1:{port}"):
            assert running.poll() is None
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(60) == 0
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert client.list_deployments() == []
