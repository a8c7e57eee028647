"""The one place that starts a run tells what is wrong with the tracking store, and leaves other errors alone."""

import re

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.tracking.run import start_run


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("foo://bar", "unsupported URI"),
        ("file:///tmp/x", "maintenance mode"),
        ("sqlite:///no-database.txt", "file is not a database"),
        ("sqlite:///no-database.txt/mlflow.db", "no-database.txt"),
        ("postgresql+none://me:secret@localhost/db", ""),
        ("http://127.0.0.1:9", "API request to http://127.0.0.1:9"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_in_one_line(store, monkeypatch, uri, told):
    (store / "no-database.txt").write_text("my notes, long enough to be no empty database" * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(uri)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    shown = re.escape(uri.replace("me:secret", "***"))
    wanted = f"^MLFLOW_TRACKING_URI={shown} cannot be used: .*{told}.*sqlite:////"
    with pytest.raises(ConfigError, match=wanted) as told_as, start_run("x", {}, {}):
        pytest.fail("the body must not run")
    assert "\n" not in str(told_as.value)
    assert "secret" not in str(told_as.value)


def test_an_error_in_the_body_stays_what_it_is(store):
    with pytest.raises(MlflowException, match="mine"), start_run("x", {}, {}):
        raise MlflowException("mine")
    with pytest.raises(ConfigError, match="^also mine$"), start_run("y", {}, {}):
        raise ConfigError("also mine")
    runs = {run.info.run_name: run for run in mlflow.search_runs(output_format="list", search_all_experiments=True)}
    assert [runs[name].info.status for name in "xy"] == ["FAILED", "FAILED"]
    assert runs["y"].data.tags[names.ERROR] == "also mine"


def test_a_run_inside_another_is_its_child(store):
    with start_run("outer", {}, {}) as outer, start_run("inner", {}, {}) as inner:
        assert mlflow.get_run(inner.info.run_id).data.tags["mlflow.parentRunId"] == outer.info.run_id
