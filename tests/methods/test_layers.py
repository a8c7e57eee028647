"""A layer is found again in the graph that was made of its network."""

import pytest
import torch
from transformers import AlbertConfig, AlbertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from mlflow_llmops.errors import ModelError
from mlflow_llmops.methods._layers import flattened, named, nodes_of, weighted_layers
from mlflow_llmops.methods.export import onnx
from mlflow_llmops.methods.export import openvino as to_ir
from mlflow_llmops.methods.table import build
from mlflow_llmops.models.text_model import TextModel


def read(model: TextModel):
    """The constants that the nodes of an exported graph multiply with."""
    return {"onnx": onnx, "openvino": to_ir}[model.kind].saved_weights(model.folder)


@pytest.fixture(scope="module")
def albert(tiny_model) -> TextModel:
    """Three layers that are one."""
    torch.manual_seed(0)
    shape = {"embedding_size": 16, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = AlbertConfig(vocab_size=300, intermediate_size=64, num_labels=3, **shape)
    return tiny_model.with_net(AlbertForSequenceClassification(config).eval())


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_every_layer_has_its_node(kind, tiny_model, tiny_texts, tmp_path):
    exported = build(f"export.{kind}", {}).apply(tiny_model, tiny_texts, tmp_path)
    layers = list(weighted_layers(tiny_model.network))
    found = nodes_of(tiny_model.network, layers, read(exported))
    assert [len(nodes) for nodes in found.values()] == [1] * len(layers)
    assert len(flattened(found)) == len(layers) == 14  # two blocks of six, the pooler and the head


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_a_shared_layer_has_a_node_for_each_run(kind, albert, tiny_texts, tmp_path):
    exported = build(f"export.{kind}", {}).apply(albert, tiny_texts, tmp_path)
    (query,) = (name for name in weighted_layers(albert.network) if name.endswith("query"))
    assert len(nodes_of(albert.network, [query], read(exported))[query]) == 3


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_a_layer_that_the_graph_lacks_is_an_error(kind, tiny_model, tiny_texts, tmp_path):
    exported = build(f"export.{kind}", {}).apply(tiny_model, tiny_texts, tmp_path)
    other = tiny_model.with_net(type(tiny_model.network)(tiny_model.network.config))
    with pytest.raises(ModelError, match=r"layer classifier is not found in the exported graph"):
        nodes_of(other.network, ["classifier"], read(exported))


def test_patterns_name_layers_in_the_networks_order(tiny_model):
    net = tiny_model.network
    assert named(net, "classifier, *.1.output.dense,*.0.output.dense") == (
        "bert.encoder.layer.0.output.dense",
        "bert.encoder.layer.1.output.dense",
        "classifier",
    )
    assert named(net, None) == ()
    assert named(net, "*") == tuple(weighted_layers(net))


def test_a_pattern_that_fits_nothing_names_the_near_ones(tiny_model):
    with pytest.raises(ModelError, match=r"no layer is named 'clasifier'; near ones: classifier"):
        named(tiny_model.network, "clasifier")


def test_gpt2s_own_kind_of_layer_counts():
    net = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2))
    assert [name.removeprefix("transformer.h.0.") for name in weighted_layers(net)] == [
        "attn.c_attn",
        "attn.c_proj",
        "mlp.c_fc",
        "mlp.c_proj",
        "lm_head",
    ]
