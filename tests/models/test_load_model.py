"""A model that was saved answers as it did, under the labels that are its own."""

import pytest
import torch

from mlflow_llmops.errors import ConfigError, ModelError
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.models.load import load


@pytest.fixture
def folder(tiny_model, tmp_path) -> str:
    tiny_model.save(tmp_path)
    return str(tmp_path)


def test_a_saved_model_answers_as_before(folder, tiny_model, tiny_texts):
    loaded = load(folder)
    assert loaded.labels == tiny_model.labels
    expected = scorer_of(tiny_model).logits(tiny_texts.dev.texts)
    assert (scorer_of(loaded).logits(tiny_texts.dev.texts) == expected).all()


@pytest.mark.parametrize("asked", [("weather", "kitchen", "sea"), ("sea", "kitchen"), ()])
def test_the_labels_keep_the_order_of_the_models_outputs(folder, tiny_model, tiny_texts, asked):
    loaded = load(folder, labels=asked)
    assert loaded.labels == tiny_model.labels
    expected = scorer_of(tiny_model).logits(tiny_texts.dev.texts)
    assert (scorer_of(loaded).logits(tiny_texts.dev.texts) == expected).all()


def test_more_labels_get_a_fresh_head_on_the_same_body(folder, tiny_model):
    torch.manual_seed(0)
    labels = ("kitchen", "sea", "sport", "weather")
    loaded = load(folder, labels=labels)
    assert loaded.labels == tuple(loaded.network.config.id2label.values()) == labels
    body = tiny_model.network.bert.state_dict()
    assert all(torch.equal(value, body[name]) for name, value in loaded.network.bert.state_dict().items())
    assert loaded.network.classifier.out_features == 4


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"model=models:/m/1: the folder holds no config.json"):
        load(str(tmp_path), named="models:/m/1")


def test_an_unknown_task_names_the_known(folder):
    with pytest.raises(ConfigError, match="task=poetry is not known; choose one of: text-classification, text-gen"):
        load(folder, "poetry")


def test_the_builtin_encoder_needs_texts_to_learn_its_words_from():
    with pytest.raises(ConfigError, match="model=builtin:encoder is a classifier that finetune trains"):
        load("builtin:encoder")
