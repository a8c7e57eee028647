"""Every kind of reference finds the same model."""

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from mlflow_llmops.errors import ModelError
from mlflow_llmops.flavors.by_kind import log_text_model
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.registry.versions import register
from mlflow_llmops.tracking.loaded import load_model

TEXTS = ["oven and butter", "the boat in the harbour"]


@pytest.fixture
def logged(store, tiny_model):
    with mlflow.start_run() as run:
        info = log_text_model(tiny_model)
    version = register(info.model_uri, "m", {})
    MlflowClient().set_registered_model_alias("m", "champion", version)
    MlflowClient().transition_model_version_stage("m", version, "Production")
    return run.info.run_id, info


def test_version_alias_stage_run_and_id_are_one_model(logged, tiny_model):
    run_id, info = logged
    expected = scorer_of(tiny_model).logits(TEXTS)
    for reference in (
        "models:/m/1",
        "models:/m@champion",
        "models:/m/Production",
        f"runs:/{run_id}/model",
        info.model_uri,
    ):
        loaded = load_model(reference)
        assert loaded.model.labels == tiny_model.labels
        assert loaded.model.max_length == tiny_model.max_length
        assert np.allclose(scorer_of(loaded.model).logits(TEXTS), expected, atol=1e-5), reference


def test_an_exported_version_loads_as_exported(store, tiny_exported):
    with mlflow.start_run():
        info = log_text_model(tiny_exported)
    loaded = load_model(info.model_uri).model
    assert loaded.kind == "openvino"
    assert np.allclose(scorer_of(loaded).logits(TEXTS), scorer_of(tiny_exported).logits(TEXTS))


@pytest.mark.parametrize("reference", ["models:/nobody/1", "models:/nobody@champion", "runs:/0123/model"])
def test_a_reference_to_nothing_names_itself_and_the_store(store, reference):
    with pytest.raises(ModelError, match=f"^model={reference} is not in the tracking store sqlite"):
        load_model(reference)


def test_a_model_of_another_flavor_is_told(store):
    class Nothing(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input: list[str]) -> list[str]:
            return model_input

    with mlflow.start_run():
        info = mlflow.pyfunc.log_model(python_model=Nothing(), name="other")
    with pytest.raises(ModelError, match="is no text model of ours; its flavors are: python_function"):
        load_model(info.model_uri)
