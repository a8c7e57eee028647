"""Two processes that a launcher starts train as one would, and only the first of them has a run."""

import os
import subprocess
import sys

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from safetensors.numpy import load_file

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.steps.compress import compress
from mlflow_llmops.steps.parameters import run

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
OPTIONS = {"student": "layers:1", "epochs": "2", "batch_size": "30", "token_dropout": "0"}


def launched(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*LAUNCHER, *words], env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_two_processes_are_one_run_that_trains_as_one_process_does(store, tiny_folder, tiny_data, monkeypatch):
    monkeypatch.setenv("LLMOPS_WORK", str(store / "work"))
    given = ["--model", str(tiny_folder), "--data", str(tiny_data), "--register-as", "two", "--measure-seconds", "0.5"]
    given += [word for name, value in OPTIONS.items() for word in (f"--{name.replace('_', '-')}", value)]
    done = launched("-m", "mlflow_llmops", "distill", *given)
    assert done.returncode == 0, done.stderr[-3000:]
    (two,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert two.info.status == "FINISHED" and two.data.tags[names.RELOADED] == "same outputs"
    (version,) = MlflowClient().search_model_versions("name='two'")
    assert version.run_id == two.info.run_id
    assert list((store / "work").iterdir()) == []
    assert done.stdout.count("registered as version") == 1
    assert done.stderr.count("teacher's answers:   0%") == 1

    alone = compress("distill", "logits", str(tiny_folder), str(tiny_data), measure_seconds=0.5, options=OPTIONS)
    histories = [
        {metric.step: metric.value for metric in MlflowClient().get_metric_history(run_id, name)}
        for run_id in (two.info.run_id, alone.run_id)
        for name in ("train/loss", "train/label_loss")
    ]
    for one, other in ((histories[0], histories[2]), (histories[1], histories[3])):
        assert one.keys() == other.keys() and len(one) >= 4
        assert list(one.values()) == pytest.approx(list(other.values()), rel=1e-3)


TRAINED = """
import sys
from pathlib import Path
import torch
from mlflow_llmops.data.load import load_data
from mlflow_llmops.methods import _train as module
from mlflow_llmops.methods._losses import label_loss
from mlflow_llmops.methods._launch import is_main
from mlflow_llmops.methods._rows import rows_of
from mlflow_llmops.methods._session import Session, session
from mlflow_llmops.models.load import load
model, data = load(sys.argv[1]), load_data(sys.argv[2])
torch.manual_seed(0)
along = torch.nn.Linear(32, 32)
def loss(outputs, batch):
    return {**label_loss(outputs, batch), "far": (1.0, along(outputs.hidden_states[-1][:, 0]).square().mean())}
if not is_main():
    with torch.no_grad():
        model.network.classifier.bias.add_(1.0)  # the first process's weights are everybody's
rows, dev = rows_of(model, data.train.pick(range(240))), rows_of(model, data.dev)
schedule = module.Schedule(4, 3e-3, 24, 0.0, 0, accumulation=2, patience=1)
with session(Session(work=Path(sys.argv[3]), checkpoint_seconds=0.0 if is_main() else 1e6)):
    net = module.train(model, rows, schedule, loss, dev=dev, wants=("hidden_states",), along=along)
if is_main():
    net.save_pretrained(sys.argv[4])
"""
"""Losses are means over texts, so that the mean over processes is the mean over all. Only the first process knows when
to save, and its weights are those that training starts from."""
NO_GRADIENT = ".key.bias"
"""It moves all scores of a query alike, which a softmax takes out: AdamW follows what rounding leaves."""


@pytest.mark.slow
def test_what_two_processes_train_are_the_weights_that_one_trains(tiny_folder, tiny_data, tmp_path):
    (tmp_path / "script.py").write_text(TRAINED)
    weights = []
    for start, name in ((launched, "two"), (alone, "one")):
        words = [str(tmp_path / "script.py"), str(tiny_folder), str(tiny_data), str(tmp_path / f"work-{name}")]
        done = start(*words, str(tmp_path / name))
        assert done.returncode == 0, done.stderr[-3000:]
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    for name in (name for name in weights[0] if not name.endswith(NO_GRADIENT)):
        np.testing.assert_allclose(weights[1][name], weights[0][name], atol=2e-4, err_msg=name)


def alone(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True)


@pytest.mark.slow
def test_a_mistake_is_told_once_and_ends_all(store, tiny_data):
    (store / "empty").mkdir()
    done = launched("-m", "mlflow_llmops", "distill", "--model", "empty", "--data", str(tiny_data))
    assert done.returncode != 0
    told = "Error: model=empty: the folder holds no config.json"
    assert (done.stderr + done.stdout).count(told) == 1, done.stderr[-3000:]
    assert "in from_main" not in done.stderr
    (failed,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert failed.info.status == "FAILED" and "model=empty" in failed.data.tags[names.ERROR]


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")


def test_what_cannot_be_shared_out_is_refused_at_once(store, tiny_data, two):
    with pytest.raises(ConfigError, match="^export.onnx trains nothing, so 2 processes do not help it"):
        compress("export", "onnx", "no/model", str(tiny_data), options={})
    with pytest.raises(ConfigError, match="^quantize.qat writes a graph after its training, which one process does"):
        compress("quantize", "qat", "no/model", str(tiny_data), options={})
    with pytest.raises(ConfigError, match="^batch_size=31 cannot be shared out evenly to 2 processes"):
        compress("distill", "logits", "no/model", str(tiny_data), options={"batch_size": "31"})
    with pytest.raises(ConfigError, match="^main runs as one process, and 2 were started"):
        run("main", {})
