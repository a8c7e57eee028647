"""A distillation that is killed goes on in the same run, with the teacher's answers that it has."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.steps.compress import compress

OPTIONS = {"student": "layers:1", "epochs": "8", "batch_size": "4", "learning_rate": "0.001"}


@pytest.fixture
def command(store, tiny_folder, tiny_data):
    said = [sys.executable, "-m", "mlflow_llmops", "distill", "--model", str(tiny_folder), "--data", str(tiny_data)]
    said += ["--measure-seconds", "0.5", "--register-as", "tiny"]
    return said + [word for name, value in OPTIONS.items() for word in (f"--{name.replace('_', '-')}", value)]


@pytest.fixture
def environment(store, monkeypatch):
    monkeypatch.setenv("LLMOPS_WORK", str(store / "work"))
    return {**os.environ, "LLMOPS_CHECKPOINT_SECONDS": "0.2", "OMP_NUM_THREADS": "1"}


def killed(command: list[str], environment: dict[str, str], work: Path) -> None:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(work.glob("*/train/checkpoint-*/trainer_state.json")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_kill_9_and_resume_is_one_run(command, environment, store):
    killed(command, environment, store / "work")
    client = MlflowClient()
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    before = client.get_metric_history(run.info.run_id, "train/loss")
    done = subprocess.run([*command, "--resume", run.info.run_id], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (after,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert (after.info.run_id, after.info.status) == (run.info.run_id, "FINISHED")
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")]
    again = steps[len(before) :]
    assert again and min(again) > 1, "it went on, and did not begin anew"
    assert after.data.tags[names.RELOADED] == "same outputs"
    assert client.get_model_version("tiny", "1").run_id == run.info.run_id
    assert list((store / "work").iterdir()) == []

    whole = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr[-2000:]
    other = mlflow.search_runs(search_all_experiments=True, output_format="list")[0]
    assert other.data.metrics[names.ACCURACY] == after.data.metrics[names.ACCURACY], "same seed, same end"
    assert "teacher's answers" not in whole.stderr, "the answers of the first run are found"

    finished = subprocess.run([*command, "--resume", run.info.run_id], env=environment, capture_output=True, text=True)
    assert finished.returncode == 2
    assert "that run has finished" in finished.stderr


def test_a_run_goes_on_with_its_own_options_only(store, tiny_folder, tiny_data):
    where = (str(tiny_folder), str(tiny_data))
    with pytest.raises(ConfigError, match="^resume=0123: there is no such run"):
        compress("export", "onnx", *where, resume="0123", options={})
    with pytest.raises(Exception, match="student="):
        compress("distill", "logits", *where, options={"student": "layers:9"})
    failed = mlflow.search_runs(output_format="list")[0].info.run_id
    with pytest.raises(ConfigError, match=f"resume={failed} is a run of distill.logits, not of export.onnx"):
        compress("export", "onnx", *where, resume=failed, options={})
    with pytest.raises(ConfigError, match="distill.seed=1: the run that is resumed has 0"):
        compress("distill", "logits", *where, resume=failed, seed=1, options={"student": "layers:9"})
