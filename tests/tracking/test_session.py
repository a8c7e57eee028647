"""A run offers its methods what outlives them: metrics at a step, kept answers, a folder until all went well."""

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from mlflow_llmops.methods._session import current
from mlflow_llmops.tracking import session as module
from mlflow_llmops.tracking.session import recall, run_session, work_folder


@pytest.fixture(autouse=True)
def work(monkeypatch, tmp_path):
    monkeypatch.setenv(module.WORK, str(tmp_path / "work"))


def test_metrics_reach_the_run_at_their_step(store):
    with mlflow.start_run() as run, run_session(run.info.run_id):
        current().record({"train/loss": 2.0}, 5)
        current().record({"train/loss": 1.0}, 9)
    history = MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(5, 2.0), (9, 1.0)]


def test_what_a_run_kept_is_found_by_another_in_any_experiment(store, tmp_path):
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "a.txt").write_text("kept")
    with mlflow.start_run() as run, run_session(run.info.run_id):
        current().keep("k1", tmp_path / "answers")
    mlflow.set_experiment("another")
    with mlflow.start_run() as other, run_session(other.info.run_id):
        found = current().recall("k1")
        assert (found / "a.txt").read_text() == "kept"
        assert current().recall("k2") is None


def test_kept_things_that_somebody_deleted_are_not_there(store, tmp_path):
    import shutil

    (tmp_path / "a.txt").write_text("kept")
    with mlflow.start_run() as run, run_session(run.info.run_id):
        (tmp_path / "answers").mkdir()
        current().keep("k1", tmp_path / "answers")
    shutil.rmtree(run.info.artifact_uri.removeprefix("file://"), ignore_errors=True)
    assert recall("k1") is None


def test_the_work_folder_goes_when_all_went_well_and_stays_when_not(store):
    def working(run_id: str, fails: bool):
        with run_session(run_id):
            current().work.mkdir(parents=True)
            (current().work / "checkpoint").write_text("half done")
            if fails:
                raise KeyboardInterrupt

    with mlflow.start_run() as run:
        working(run.info.run_id, fails=False)
    assert not work_folder(run.info.run_id).exists()
    with pytest.raises(KeyboardInterrupt), mlflow.start_run() as run:
        working(run.info.run_id, fails=True)
    assert (work_folder(run.info.run_id) / "checkpoint").exists()
    assert current().work is None, "outside of a run there is none"


def test_a_registered_model_can_be_a_student(store, tiny_model, tiny_exported):
    from mlflow_llmops.errors import ConfigError
    from mlflow_llmops.flavors.by_kind import log_text_model
    from mlflow_llmops.measure.scorer import scorer_of
    from mlflow_llmops.methods.distill._student import build_student

    with pytest.raises(ConfigError, match="models:/m/1 is known to a tracking store only"):
        build_student(tiny_model, "models:/m/1", 0)
    with mlflow.start_run() as run:
        uri, graph = (log_text_model(model).model_uri for model in (tiny_model, tiny_exported))
        with run_session(run.info.run_id):
            student = build_student(tiny_model, uri, 0)
            with pytest.raises(ConfigError, match="cannot be trained"):
                build_student(tiny_model, graph, 0)
    texts = ["oven and butter", "the tide came"]
    assert scorer_of(student).logits(texts) == pytest.approx(scorer_of(tiny_model).logits(texts), abs=1e-5)
