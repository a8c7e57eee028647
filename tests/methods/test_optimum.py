"""Graphs of optimum-onnx answer as torch does. This file is run in an environment of its own: `make test-optimum`."""

import mlflow
import numpy as np
import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from mlflow_llmops.batching.scorer import pad
from mlflow_llmops.errors import ConfigError, MissingExtra, ModelError
from mlflow_llmops.measure.generation import complete, prompts_of
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods._exported import example_ids
from mlflow_llmops.methods.table import build
from mlflow_llmops.steps.compress import compress


def test_here_is_the_old_transformers():
    assert transformers.__version__.startswith("4.57.")


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_a_classifier_keeps_its_outputs(kind, tiny_model, tiny_texts, tmp_path):
    exported = build(f"export.{kind}", {"exporter": "optimum"}).apply(tiny_model, tiny_texts, tmp_path)
    batch = pad([ids[: 3 + i] for i, ids in enumerate(example_ids(tiny_model, 5, 60))], tiny_model.pad_id)
    np.testing.assert_allclose(exported.run(batch), tiny_model.run(batch), atol=1e-4)
    assert set(exported.run.input_names) == {"input_ids", "attention_mask"}


def test_transformers_own_exporter_is_not_there(tiny_model, tiny_texts, tmp_path):
    with pytest.raises(MissingExtra, match=r"needs transformers 5\.23 or newer, and here is 4\.57"):
        build("export.onnx", {"exporter": "transformers"}).apply(tiny_model, tiny_texts, tmp_path)
    with pytest.raises(MissingExtra, match="quantize.int8_static with engine=openvino"):
        build("quantize.int8_dynamic", {}).apply(tiny_model, tiny_texts, tmp_path)
    with pytest.raises(ConfigError, match="fusions=True: exporter=optimum joins no nodes"):
        build("export.onnx", {"fusions": True})


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_causal_model_writes_and_reads_as_in_torch(family, tiny_decoder, tiny_texts, tmp_path):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
    if family == "llama":
        shape |= {"num_key_value_heads": 2, "intermediate_size": 64}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
    config = AutoConfig.for_model(family, vocab_size=len(tiny_decoder.tokenizer), **shape, **ids)
    source = tiny_decoder.with_net(AutoModelForCausalLM.from_config(config).eval())
    exported = build("export.onnx", {}).apply(source, tiny_texts, tmp_path)
    prompts = prompts_of(tiny_texts.test.texts, 8)
    mine, theirs = complete(source, prompts), complete(exported, prompts)
    assert [each.ids for each in theirs] == [each.ids for each in mine]
    assert len({tuple(each.ids) for each in mine}) > 4
    with pytest.raises(ModelError, match="no OpenVINO graph of a causal model; take export.onnx"):
        build("export.openvino", {}).apply(source, tiny_texts, tmp_path / "other")


def test_static_int8_agrees_with_the_network_it_was_made_of(tiny_model, tiny_texts, tmp_path):
    made = build("quantize.int8_static", {}).apply(tiny_model, tiny_texts, tmp_path)
    mine, theirs = (scorer_of(model).logits(tiny_texts.test.texts).argmax(1) for model in (tiny_model, made))
    assert (mine == theirs).mean() > 0.95


def test_a_run_proves_the_graph_in_a_fresh_process_and_registers_it(store, tiny_folder, tiny_data):
    made = compress("export", "onnx", str(tiny_folder), str(tiny_data), measure_seconds=0.5, register_as="old")
    assert made.values["link"].version == "1"
    answers = mlflow.pyfunc.load_model("models:/old/1").predict(["the boat", "rain and wind"])
    assert list(answers["label"]) == ["sea", "weather"]


def test_torchao_says_before_the_work_that_nothing_could_be_saved(tiny_model, tiny_texts):
    with pytest.raises(MissingExtra, match=r"transformers 4\.57.* cannot save what torchao quantized"):
        build("quantize.torchao", {}).check(tiny_model, tiny_texts)
