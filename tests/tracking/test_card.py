"""Every registered version has a card, and what the card says of loading, data and origin is so."""

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.steps.compress import compress
from mlflow_llmops.tracking.licence import licence_of
from mlflow_llmops.tracking.loaded import LoadedModel

CARD = "---\nlanguage: en\nlicense: {}\n---\n# A model\n"


@pytest.mark.slow
def test_a_version_has_its_card_and_a_version_of_it_inherits_the_licence(store, tiny_model, tiny_data, tiny_texts):
    tiny_model.save(store / "source")
    (store / "source" / "README.md").write_text(CARD.format("cc-by-4.0"))
    small = {"data": str(tiny_data), "register_as": "m", "measure_seconds": 0.3, "speed_grid": False}
    compress("finetune", "full", str(store / "source"), **small, options={"epochs": "0"})
    outcome = compress("export", "openvino", "models:/m/1", **small)

    version = MlflowClient().get_model_version("m", "2")
    assert version.tags[names.MODEL_CARD] == f"runs:/{outcome.run_id}/{names.CARD_TEXT}"
    assert version.tags[names.LICENCE] == "cc-by-4.0"
    assert version.tags[names.MODEL_CARD] in version.description
    assert "cc-by-4.0" in version.description
    card = mlflow.artifacts.load_dict(f"runs:/{outcome.run_id}/{names.CARD}")
    assert (card["name"], card["version"], card["chain"]) == ("m", "2", ["export.openvino"])
    assert card["source"]["model"] == "models:/m/1"
    assert card["source"]["licence"] == "cc-by-4.0"
    assert card["data"]["fingerprint"] == tiny_texts.fingerprint
    assert card["data"]["test"] == tiny_texts.test.fingerprint
    assert card["hardware"][names.HARDWARE]
    metrics = mlflow.get_run(outcome.run_id).data.metrics
    numbers = card["measured"]["export.openvino"]
    for metric in (names.ACCURACY, names.TEXTS_PER_S, names.SPEEDUP):
        for end in ("", names.LOW, names.HIGH):
            assert numbers[metric + end] == metrics[metric + end]

    text = mlflow.artifacts.load_text(version.tags[names.MODEL_CARD])
    assert text.startswith("# m version 2\n")
    for said in ("models:/m/2", "cc-by-4.0", "models:/m/1", tiny_texts.fingerprint, "±", "mlflow models serve"):
        assert said in text
    code = text.split("```python\n")[1].split("```")[0]
    space: dict = {}
    exec(code.replace("mlflow.pyfunc", "answer = mlflow.pyfunc"), space)
    assert space["answer"]["label"][0] in tiny_texts.labels


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (CARD.format("apache-2.0"), "apache-2.0"),
        (CARD.format("[mit, cc0-1.0]"), "mit, cc0-1.0"),
        (CARD.format("other\nlicense_name: own-1"), "own-1"),
        ("---\nlanguage: en\n---\n", None),
        ("---\n: : [\n---\n", None),
        ("# No head\nlicense: mit\n---\n", None),
        ("", None),
    ],
)
def test_the_licence_stands_in_the_head_of_the_models_card(tmp_path, tiny_model: TextModel, card, licence):
    (tmp_path / "README.md").write_text(card)
    assert licence_of(LoadedModel(tiny_model, str(tmp_path))) == licence


def test_a_model_of_the_hub_is_looked_up_where_it_was_loaded_to(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert licence_of(LoadedModel(tiny_model, "org/name")) is None
    model = tmp_path / "models--org--name"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("abc")
    (model / "snapshots" / "abc").mkdir(parents=True)
    (model / "snapshots" / "abc" / "README.md").write_text(CARD.format("mit"))
    assert licence_of(LoadedModel(tiny_model, "org/name")) == "mit"
    assert licence_of(LoadedModel(tiny_model, "builtin:encoder")) is None
