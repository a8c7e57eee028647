"""However a job ends, its run says so. The jobs are small ones in one process: how they end is what is tested."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import psutil
import pytest
from mlflow.exceptions import ExecutionException
from mlflow.tracking import MlflowClient

from tests.serving_process import hears_ctrl_c

pytestmark = [pytest.mark.spark, pytest.mark.slow]

PROJECT = """
name: toy
entry_points:
  main:
    parameters: {do: {type: string}}
    command: "python work.py {do}"
  shell: {command: "bash -c true"}
"""
WORK = """
import os, sys, time
from pathlib import Path
Path("pid").write_text(str(os.getpid()))
print("at work:", sys.argv[1], flush=True)
if sys.argv[1] == "sleep":
    time.sleep(600)
sys.exit(3 if sys.argv[1] == "fail" else 0)
"""


@pytest.fixture
def toy(store: Path) -> Path:
    (store / "toy").mkdir()
    (store / "toy" / "MLproject").write_text(PROJECT)
    (store / "toy" / "work.py").write_text(WORK)
    (store / "cluster.json").write_text(json.dumps({"master": "local[1]"}))
    return store / "toy"


def started(toy: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mlflow", "run", str(toy), "-b", "llmops-spark", *words]
    command += [] if "--backend-config" in words else ["--backend-config", "cluster.json"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=hears_ctrl_c
    )


def the_run() -> mlflow.entities.Run:
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return run


def asleep(toy: Path) -> psutil.Process:
    """The driver, once it is at work; nested in its run is another one that it left open."""
    deadline = time.monotonic() + 120
    while not (toy / "pid").is_file() or not (toy / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    parent = the_run().info
    MlflowClient().create_run(parent.experiment_id, tags={"mlflow.parentRunId": parent.run_id})
    return psutil.Process(int((toy / "pid").read_text()))


def gone(process: psutil.Process) -> bool:
    """A container without an init keeps its dead."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def states() -> list[str]:
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return [run.info.status for run in runs]


@pytest.mark.parametrize(("do", "code", "status"), [("well", 0, "FINISHED"), ("fail", 1, "FAILED")])
def test_mlflow_run_waits_streams_the_log_and_ends_as_the_job_did(toy, do, code, status):
    running = started(toy, "-P", f"do={do}")
    said, _ = running.communicate(timeout=240)
    assert running.returncode == code, said
    assert f"at work: {do}" in said and "Traceback" not in said
    assert the_run().info.status == status
    assert the_run().data.tags["mlflow.project.backend" if code == 0 else "mlflow.user"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_the_job_and_its_runs(toy, number):
    running = started(toy, "-P", "do=sleep")
    driver = asleep(toy)
    running.send_signal(number)
    said, _ = running.communicate(timeout=120)
    assert running.returncode != 0
    assert states() == ["KILLED", "KILLED"], said
    assert gone(driver)


@pytest.mark.parametrize("victim", ["spark-submit", "driver"])
def test_a_job_that_is_killed_ends_its_runs(toy, victim):
    running = started(toy, "-P", "do=sleep")
    driver = asleep(toy)
    os.kill(driver.ppid() if victim == "spark-submit" else driver.pid, signal.SIGKILL)
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 1, said
    assert states() == ["FAILED", "FAILED"]
    assert gone(driver)


def test_mistakes_are_one_line_and_leave_no_run(toy):
    for words, told in (
        (["-e", "shell"], "entry point shell runs `bash -c true`"),
        (["-P", "do=x", "--backend-config", '{"master": "local", "nodes": 1}'], "backend-config: nodes is unknown"),
        (["-P", "do=x", "--env-manager", "virtualenv"], "leave out --env-manager"),
    ):
        running = started(toy, *words)
        said, _ = running.communicate(timeout=120)
        assert running.returncode == 1 and told in said and "Traceback" not in said, said
    assert states() == []


def test_who_does_not_wait_gets_a_run_to_wait_for(toy):
    job = mlflow.projects.run(
        str(toy),
        parameters={"do": "fail"},
        backend="llmops-spark",
        backend_config={"master": "local[1]", "wait": False},
        synchronous=False,
    )
    assert job.get_status() == "RUNNING"
    assert not job.wait() and job.get_status() == "FAILED" == the_run().info.status
    with pytest.raises(ExecutionException, match="backend-config must name the cluster's master"):
        mlflow.projects.run(str(toy), parameters={"do": "fail"}, backend="llmops-spark")
