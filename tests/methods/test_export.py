"""Exports keep the outputs of every family that errors name, and the faster runtime is found by running both."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from mlflow_llmops.batching.scorer import pad
from mlflow_llmops.data.texts import Texts
from mlflow_llmops.engines.artifact import ExportedArtifact
from mlflow_llmops.errors import ArtifactMismatch, DataError, ModelError
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods import _fastest
from mlflow_llmops.methods._exported import FAMILIES, check_equal, example_ids
from mlflow_llmops.methods._session import Session, session
from mlflow_llmops.methods.table import build
from mlflow_llmops.models.text_model import TextModel

SHAPE = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPES = {
    "distilbert": {"vocab_size": 300, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "albert": {**SHAPE, "embedding_size": 16},
    "electra": {**SHAPE, "embedding_size": 32},
    "mobilebert": {**SHAPE, "embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
}
ENCODERS = [family for family in FAMILIES if family not in ("gpt2", "llama")]


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
@pytest.mark.parametrize("family", ENCODERS)
def test_every_family_keeps_its_outputs(family, kind, tiny_model, tiny_texts, tmp_path):
    torch.manual_seed(0)
    shape = {**SHAPES.get(family, SHAPE), "num_labels": 3, "pad_token_id": tiny_model.pad_id}
    if family not in ("distilbert", "mobilebert"):
        shape["intermediate_size"] = 64
    config = AutoConfig.for_model(family, max_position_embeddings=130, **shape)
    net = AutoModelForSequenceClassification.from_config(config).eval()
    model = replace(tiny_model.with_net(net), max_length=64)
    exported = build(f"export.{kind}", {}).apply(model, tiny_texts, tmp_path)
    batch = pad([ids[: 3 + i] for i, ids in enumerate(example_ids(model, 5, 60))], model.pad_id)
    np.testing.assert_allclose(exported.run(batch), model.run(batch), atol=1e-4)


def test_a_graph_that_answers_otherwise_is_found(tiny_model, tiny_exported):
    other = tiny_model.with_net(type(tiny_model.network)(tiny_model.network.config).eval())
    check_equal(tiny_model, tiny_exported)
    with pytest.raises(ArtifactMismatch, match=r"the openvino graph is off torch's by .* at 1 tokens"):
        check_equal(other, tiny_exported)


@pytest.mark.parametrize("options", [{"fusions": True}, {"optimization": "none"}, {"optimization": "basic"}])
def test_what_onnxruntime_does_to_the_graph_changes_no_output(options, tiny_model, tiny_texts, tmp_path):
    exported = build("export.onnx", options).apply(tiny_model, tiny_texts, tmp_path)
    expected = scorer_of(tiny_model).logits(tiny_texts.test.texts)
    np.testing.assert_allclose(scorer_of(exported).logits(tiny_texts.test.texts), expected, atol=1e-4)
    assert ExportedArtifact.read(tmp_path).runtime == {"optimization": options.get("optimization", "all")}


def test_the_fastest_is_what_took_least_time_and_the_others_leave_nothing(
    tiny_model, tiny_texts, tmp_path, monkeypatch
):
    noted: dict = {}
    with session(Session(note=noted.update)):
        made = build("export.fastest", {}).apply(tiny_model, tiny_texts, tmp_path)
    times = {name: noted[f"engine.{name}_times_as_long"] for name in ("onnx", "openvino")}
    assert made.kind == noted["engine.fastest"] == min(times, key=times.get)
    assert times[made.kind] == 1.0
    assert max(times.values()) > 1.0
    assert ExportedArtifact.read(tmp_path).kind == made.kind
    assert not any(path.is_dir() for path in tmp_path.iterdir())
    expected = scorer_of(tiny_model).logits(tiny_texts.test.texts)
    np.testing.assert_allclose(scorer_of(made).logits(tiny_texts.test.texts), expected, atol=1e-4)


def test_the_one_that_is_slow_loses(tiny_model, tiny_exported, tiny_texts):
    class Slow(type(tiny_exported)):
        @property
        def run(self):
            def four_times(batch):
                for _ in range(3):
                    tiny_exported.run(batch)
                return tiny_exported.run(batch)

            return four_times

    slow = Slow(**{name: getattr(tiny_exported, name) for name in tiny_exported.__dataclass_fields__})
    seconds = _fastest._timed({"slow": slow, "plain": tiny_exported}, tiny_texts.train.texts[:128])
    assert seconds["slow"] > 1.5 * seconds["plain"]


def test_the_fastest_needs_texts_to_run(tiny_model, tiny_texts, tmp_path):
    with pytest.raises(DataError, match="is measured on train texts, and the train split is empty"):
        build("export.fastest", {}).apply(tiny_model, replace(tiny_texts, train=Texts(())), tmp_path)


@pytest.mark.slow
def test_torch_compile_runs_the_same_network(tiny_model, tiny_texts, tmp_path):
    made: TextModel = build("export.compile", {}).apply(tiny_model, tiny_texts, tmp_path)
    assert made.compiled
    assert made.network.state_dict().keys() == tiny_model.network.state_dict().keys()
    expected = scorer_of(tiny_model).logits(tiny_texts.test.texts)
    np.testing.assert_allclose(scorer_of(made).logits(tiny_texts.test.texts), expected, atol=1e-4)


def test_torch_compile_says_what_it_lacks(tiny_model, tiny_texts, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match="needs a C\\+\\+ compiler"):
        build("export.compile", {}).apply(tiny_model, tiny_texts, tmp_path)
