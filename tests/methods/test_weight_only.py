"""Packed weights: as small as promised, close to what they were, and refused with one line where they cannot be had."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch

from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.errors import ConfigError, DataError, ModelError
from mlflow_llmops.measure.generation import complete
from mlflow_llmops.measure.likelihood import likelihoods
from mlflow_llmops.methods._layers import nodes_of, weighted_layers
from mlflow_llmops.methods.export import onnx as to_onnx
from mlflow_llmops.methods.export import openvino as to_ir
from mlflow_llmops.methods.finetune.full import Full
from mlflow_llmops.methods.table import build
from mlflow_llmops.models.load import load
from mlflow_llmops.models.scratch_decoder import small_decoder

PROMISED = {8: 0.27, 4: 0.17}
CASES = [("openvino", 4, "gptq"), ("openvino", 8, "rtn"), ("onnx", 4, "rtn"), ("onnx", 4, "hqq"), ("onnx", 8, "rtn")]


@pytest.fixture(scope="module")
def wide(tiny_texts):
    """Two layers, 128 wide, a little trained: its logits are sure enough to see damage."""
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
    untrained = small_decoder(tiny_texts.train, vocabulary=400, **shape)
    return Full(epochs=2, learning_rate=3e-3, batch_size=16).apply(untrained, tiny_texts, Path("unused"), seed=0)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def packed(request, wide, tiny_texts, tmp_path_factory):
    engine, bits, algorithm = request.param
    folder = tmp_path_factory.mktemp("packed")
    method = build(
        "quantize.weight_only", {"engine": engine, "bits": str(bits), "algorithm": algorithm, "calibration_texts": 32}
    )
    return bits, method.apply(wide, tiny_texts, folder)


def constants(folder: Path) -> int:
    """Bytes of all the numbers in a graph."""
    if (folder / "model.onnx").is_file():
        graph = onnx.load(str(folder / "model.onnx")).graph
        return sum(
            len(tensor.raw_data) or len(onnx.numpy_helper.to_array(tensor).tobytes()) for tensor in graph.initializer
        )
    graph = openvino.Core().read_model(str(folder / "openvino_model.xml"))
    found = (op for op in graph.get_ops() if op.get_type_name() == "Constant")
    return sum(op.get_byte_size() for op in found)


def test_the_bytes_are_as_few_as_promised(packed, wide):
    """Embeddings count: in 8 bits, and for onnxruntime, which has no kernel that shares them, once more in 4."""
    bits, model = packed
    matrices = {name: p.numel() * 4 for name, p in wide.network.named_parameters() if p.ndim == 2}
    outer = sum(size for name, size in matrices.items() if "embed" in name)
    inner = sum(matrices.values()) - outer
    assert inner > 5 * outer > 0
    rest = sum(p.numel() * 4 for p in wide.network.parameters() if p.ndim == 1) + 8192
    allowed = PROMISED[bits] * inner + PROMISED[8] * outer
    if model.kind == "onnx":
        allowed += (PROMISED[4] if bits == 4 else 1) * outer
    assert 0.7 * allowed < constants(model.folder) < allowed + rest


def test_it_still_knows_the_texts_and_says_what_it_is(packed, wide, tiny_texts):
    bits, model = packed
    loaded = load(str(model.folder), "text-generation")
    assert loaded.artifact.precision.startswith(f"int{bits} weights")
    texts = tiny_texts.test.texts
    was, now = (np.concatenate(likelihoods(each, texts).log) for each in (wide, loaded))
    assert 0 < np.abs(now - was).max() < {8: 0.2, 4: 1.5}[bits], "it must differ, or nothing was packed"
    assert abs(now.mean() - was.mean()) < {8: 0.01, 4: 0.05}[bits]
    assert len(complete(loaded, ["the boat", ""], 5)) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bits": 6}, "^bits=6: "),
        ({"bits": 8, "algorithm": "awq"}, "^algorithm='awq': engine=openvino has rtn at 8 bits"),
        ({"engine": "onnx", "algorithm": "awq"}, "^algorithm='awq': engine=onnx has rtn, hqq at 4 bits"),
        ({"engine": "onnx", "group_size": 96}, "^group_size=96: engine=onnx takes powers of 2"),
        ({"group_size": 16}, "^group_size=16: "),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_read(options, said):
    with pytest.raises(ConfigError, match=said):
        build("quantize.weight_only", options)


def test_a_model_that_does_not_fit_is_refused_with_what_would(wide, tiny_texts, tiny_model):
    data = Splits(*(Texts(split.texts) for split in (tiny_texts.train, tiny_texts.dev, tiny_texts.test)))
    with pytest.raises(ModelError, match="^group_size=96 does not divide the 128 inputs of [^\n]*; take 128$"):
        build("quantize.weight_only", {"group_size": 96}).check(wide, data)
    with pytest.raises(ModelError, match="^group_size=64 does not divide the 32 inputs of [^\n]*; take 32$"):
        build("quantize.weight_only", {}).check(tiny_model, tiny_texts)
    empty = replace(data, train=Texts(()))
    with pytest.raises(DataError, match="gptq needs texts and the train split is empty; take rtn"):
        build("quantize.weight_only", {}).check(wide, empty)
    build("quantize.weight_only", {"algorithm": "rtn"}).check(wide, empty)
    with pytest.raises(ModelError, match="takes a torch model and this one is already openvino"):
        build("quantize.weight_only", {}).check(replace(wide, net=None, kind="openvino", folder=Path()), data)


@pytest.mark.parametrize(("engine", "bits"), [("openvino", 4), ("openvino", 8), ("onnx", 4), ("onnx", 8)])
def test_a_kept_layer_keeps_its_numbers(engine, bits, wide, tiny_texts, tmp_path):
    options = {"engine": engine, "bits": bits, "algorithm": "rtn", "keep": "*.0.mlp.down_proj,lm_head"}
    made = build("quantize.weight_only", options).apply(wide, tiny_texts, tmp_path)
    layers = weighted_layers(wide.network)
    kept = {name for name in layers if name.endswith(".0.mlp.down_proj") or name == "lm_head"}
    weights = {"onnx": to_onnx, "openvino": to_ir}[engine].saved_weights(tmp_path)
    assert set(nodes_of(wide.network, sorted(kept), weights)) == kept
    for other in set(layers) - kept:
        with pytest.raises(ModelError, match="is not found in the exported graph"):
            nodes_of(wide.network, [other], weights)
    assert np.isfinite(np.concatenate(likelihoods(made, tiny_texts.test.texts[:8]).log)).all()
