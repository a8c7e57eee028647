"""A backend-config that cannot work is told before there is a run."""

import re

import pytest

from mlflow_llmops.cluster.command import submit_command, words_of
from mlflow_llmops.cluster.config import read_cluster
from mlflow_llmops.errors import ConfigError

MASTER = "spark://host:7077"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "must name the cluster's master"),
        ({}, "must name the cluster's master"),
        ("cluster.txt", "must name the cluster's master"),
        ({"master": ""}, "master='' is no address"),
        ({"master": MASTER, "workers": 2, "gpus": 1}, "workers, gpus is unknown; the keys are master, conf, processes"),
        ({"master": MASTER, "processes": 0}, "processes=0 must be"),
        ({"master": MASTER, "processes": "2"}, "processes='2' must be"),
        ({"master": MASTER, "processes": True}, "processes=True must be"),
        ({"master": MASTER, "wait": "no"}, "wait='no' must be true or false"),
        ({"master": MASTER, "conf": ["spark.task.cpus=1"]}, "conf=.* must name Spark's properties"),
        ({"master": MASTER, "conf": {"executor.memory": "1g"}}, "conf has executor.memory='1g'"),
        ({"master": MASTER, "conf": {"spark.task.cpus": [1]}}, r"conf has spark.task.cpus=\[1\]"),
    ],
)
def test_what_cannot_work_is_named(given, told):
    with pytest.raises(ConfigError, match=told):
        read_cluster(given, ["ENV_MANAGER"])


def test_keys_of_mlflow_are_no_mistake():
    assert read_cluster({"master": MASTER, "ENV_MANAGER": None}, ["ENV_MANAGER"]).master == MASTER


@pytest.mark.parametrize("command", ["bash run.sh", "python -c 1", "python a.py && python b.py", "python"])
def test_what_spark_submit_cannot_start_is_refused(command):
    with pytest.raises(ConfigError, match=f"^entry point x runs `{re.escape(command)}`"):
        words_of("x", command)


def test_only_training_is_shared_out_and_never_begun_again():
    cluster = read_cluster({"master": MASTER, "processes": 2, "conf": {"spark.speculation": False}})
    train, score = (
        submit_command(cluster, "x", words_of("x", f"python -m mlflow_llmops {verb} --text 'a b'"))
        for verb in ("distill", "score")
    )
    assert train[-6:] == ["2", "-m", "mlflow_llmops", "distill", "--text", "a b"]
    assert score[-6:] == ["1", "-m", "mlflow_llmops", "score", "--text", "a b"]
    assert "spark.stage.maxConsecutiveAttempts=1" in train and "spark.stage.maxConsecutiveAttempts=1" not in score
    assert "spark.speculation=false" in train
