"""Our plugins in MLflow's own commands."""

import mlflow
import pandas as pd
import pytest

from mlflow_llmops import names
from mlflow_llmops.flavors import exported_text


def test_every_run_says_what_machine_it_ran_on(store):
    with mlflow.start_run() as run:
        pass
    tags = mlflow.get_run(run.info.run_id).data.tags
    assert tags[names.HARDWARE]
    assert int(tags[names.HARDWARE_PREFIX + "cores"]) >= 1
    assert tags[names.RUNTIME_PREFIX + "torch"]


@pytest.fixture
def logged(store, tiny_exported, tiny_texts):
    with mlflow.start_run():
        uri = exported_text.log_model(tiny_exported.folder).model_uri
    return uri, pd.DataFrame({"text": tiny_texts.test.texts, "label": tiny_texts.test.labels})


def test_the_evaluator_gives_the_metrics_of_our_own_runs(logged):
    uri, data = logged
    with mlflow.start_run() as run:
        result = mlflow.models.evaluate(uri, data, targets="label", model_type="classifier", evaluators="llmops")
    kept = mlflow.get_run(run.info.run_id).data.metrics
    for name in (names.ACCURACY, names.F1_MACRO, names.TEXTS_PER_S, names.LATENCY_P50):
        assert result.metrics[name] == kept[name]
        assert kept[name + names.LOW] <= kept[name] <= kept[name + names.HIGH]
    right = mlflow.pyfunc.load_model(uri).predict(data["text"])["label"] == data["label"]
    assert kept[names.ACCURACY] == pytest.approx(right.mean())


def test_the_evaluator_says_what_it_needs(logged):
    uri, data = logged
    with mlflow.start_run(), pytest.raises(Exception, match="give targets="):
        mlflow.models.evaluate(uri, data[["text"]], model_type="text-classification", evaluators="llmops")
    two = data.assign(other=data["text"])
    with mlflow.start_run(), pytest.raises(Exception, match="takes one column of texts; the data has: text, other"):
        mlflow.models.evaluate(uri, two, targets="label", model_type="classifier", evaluators="llmops")
