"""`mlflow run . -b llmops-spark` on a real standalone master with two workers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import psutil
import pytest
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.flavors import exported_text
from mlflow_llmops.steps.compress import compress
from tests.clusters import Cluster
from tests.serving_process import hears_ctrl_c

pytestmark = [pytest.mark.spark, pytest.mark.slow]
ROOT = str(Path(__file__).parents[2])
OPTIONS = {"student": "layers:1", "epochs": "2", "batch_size": "30", "token_dropout": "0"}


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """A test that failed leaves the cluster's cores to the next one."""
    yield
    while STARTED:
        if (running := STARTED.pop()).poll() is None:
            running.send_signal(signal.SIGINT)
            running.communicate(timeout=60)


def started(cluster: Cluster, store: Path, entry_point: str, **options: object) -> subprocess.Popen[str]:
    """Both cores of the cluster, for whatever can use them."""
    (store / "cluster.json").write_text(json.dumps({"master": cluster.url, "processes": 2}))
    given = [word for name, value in options.items() for word in ("-P", f"{name}={value}")]
    command = [sys.executable, "-m", "mlflow", "run", ROOT, "-b", "llmops-spark", "-e", entry_point, *given]
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"}
    running = subprocess.Popen(
        [*command, "--backend-config", "cluster.json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=hears_ctrl_c,
    )
    STARTED.append(running)
    return running


def submitted(cluster: Cluster, store: Path, entry_point: str, **options: object) -> subprocess.CompletedProcess[str]:
    """The same, when it has ended."""
    running = started(cluster, store, entry_point, **options)
    said = running.communicate(timeout=400)
    return subprocess.CompletedProcess(running.args, running.returncode, *said)


def the_run() -> mlflow.entities.Run:
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return run


def test_a_table_is_scored_on_the_workers(cluster, store, tiny_exported, tiny_texts):
    exported_text.save_model(tiny_exported.folder, store / "model")
    pd.DataFrame({"text": tiny_texts.test.texts[:20]}).to_parquet(store / "in.parquet")
    done = submitted(
        cluster, store, "score", model=store / "model", score_input=store / "in.parquet", score_output=store / "out"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "20 rows scored" in done.stdout
    assert len(pd.read_parquet(store / "out")) == 20
    run = the_run()
    assert run.info.status == "FINISHED" and run.data.tags["mlflow.project.backend"] == "llmops-spark"
    assert list(cluster.folder.rglob("llmops-*.zip")), "no worker fetched the model"


def test_a_distillation_over_two_processes_reaches_the_loss_of_one(cluster, store, tiny_folder, tiny_data):
    given = {"model": tiny_folder, "data": tiny_data, "register_as": "two", "measure_seconds": 0.5, **OPTIONS}
    before = set(cluster.folder.rglob("stderr"))
    done = submitted(cluster, store, "distill", **given)
    assert done.returncode == 0, done.stderr[-3000:]
    two = the_run()
    assert two.info.status == "FINISHED" and two.data.tags[names.RELOADED] == "same outputs"
    (version,) = MlflowClient().search_model_versions("name='two'")
    assert version.run_id == two.info.run_id
    assert done.stdout.count("registered as version") == 1
    for i in range(2):  # each worker had a process of the training
        assert set((cluster.folder / f"work{i}").rglob("stderr")) - before

    alone = compress("distill", "logits", str(tiny_folder), str(tiny_data), measure_seconds=0.5, options=OPTIONS)
    for name in ("train/loss", "train/label_loss"):
        one, other = (
            {metric.step: metric.value for metric in MlflowClient().get_metric_history(run_id, name)}
            for run_id in (two.info.run_id, alone.run_id)
        )
        assert one.keys() == other.keys() and len(one) >= 4
        assert list(one.values()) == pytest.approx(list(other.values()), rel=1e-3)


def test_a_mistake_in_a_training_is_told_once_and_leaves_nothing_behind(cluster, store, tiny_data):
    done = submitted(cluster, store, "distill", model=store / "nothing", data=tiny_data)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said[-3000:]
    assert said.count("nothing lies at this path") == 1, said[-3000:]
    failed = the_run()
    assert failed.info.status == "FAILED" and "nothing lies at this path" in failed.data.tags[names.ERROR]
    assert not [p for p in psutil.process_iter(["cmdline"]) if failed.info.run_id in " ".join(p.info["cmdline"] or [])]


def at_work(cluster: Cluster, running: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes of an endless training on both workers, once it has a loss."""
    deadline = time.monotonic() + 300
    while not (runs := mlflow.search_runs(output_format="list")) or "train/loss" not in runs[0].data.metrics:
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.5)
    here = [
        each for each in psutil.process_iter(["cmdline"]) if "torch_run_process_wrapper" in str(each.info["cmdline"])
    ]
    ours = [each for each in here if Path(each.cwd()).is_relative_to(cluster.folder)]
    training = [*ours, *(child for each in ours for child in each.children(recursive=True))]
    assert len(ours) == 2 and len(training) >= 6  # each with its launcher and its process
    return training


def ended(training: list[psutil.Process]) -> bool:
    """A container without an init keeps its dead."""
    return all(each.status() == psutil.STATUS_ZOMBIE for each in psutil.wait_procs(training, 30)[1])


def test_ctrl_c_ends_a_training_on_the_workers_too(cluster, store, tiny_folder, tiny_data):
    endless = {**OPTIONS, "epochs": "100000"}
    running = started(cluster, store, "distill", model=tiny_folder, data=tiny_data, **endless)
    training = at_work(cluster, running)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=120)
    assert running.returncode != 0 and the_run().info.status == "KILLED", said
    assert ended(training)
    assert the_run().info.status == "KILLED"


def test_a_process_of_a_training_that_is_killed_fails_its_run(cluster, store, tiny_folder, tiny_data):
    endless = {**OPTIONS, "epochs": "100000"}
    running = started(cluster, store, "distill", model=tiny_folder, data=tiny_data, **endless)
    training = at_work(cluster, running)
    # the first one has the run: the other is killed
    ranks = {each.pid: each for each in training if "LOCAL_RANK" in each.environ() and each.environ()["RANK"] == "1"}
    (second,) = (each for each in ranks.values() if each.ppid() not in ranks)
    second.kill()
    said = running.communicate(timeout=200)
    assert running.returncode == 1, said
    assert ended(training)
    failed = the_run()
    assert failed.info.status == "FAILED" and not MlflowClient().search_registered_models()
