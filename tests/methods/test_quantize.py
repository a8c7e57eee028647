"""What sets the quantizing methods apart: scores that stand alone, layers that stay, outliers, and training."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.utils import prune
from transformers import AutoModelForSequenceClassification

from mlflow_llmops.batching.scorer import pad
from mlflow_llmops.data.texts import Texts
from mlflow_llmops.errors import ConfigError, DataError, MissingExtra, ModelError
from mlflow_llmops.measure.intervals import share_change
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods._layers import weighted_layers
from mlflow_llmops.methods.export import onnx
from mlflow_llmops.methods.export import openvino as to_ir
from mlflow_llmops.methods.quantize._sensitivity import sensitivities
from mlflow_llmops.methods.quantize.half import Half, times_as_slow
from mlflow_llmops.methods.quantize.int8_dynamic import Int8Dynamic
from mlflow_llmops.methods.quantize.int8_static import Int8Static
from mlflow_llmops.methods.quantize.qat import Qat
from mlflow_llmops.methods.quantize.torchao import TorchAo
from mlflow_llmops.methods.table import build
from mlflow_llmops.models.scratch import small_encoder
from mlflow_llmops.models.text_model import TextModel, count_parameters


def read(model: TextModel):
    """The constants that the nodes of an exported graph multiply with."""
    return {"onnx": onnx, "openvino": to_ir}[model.kind].saved_weights(model.folder)


def drift(model, ids) -> float:
    """How far the first text's logits move when others of its length are scored along."""
    alone = model.run(pad(ids[:1], model.pad_id))[0]
    together = model.run(pad(ids, model.pad_id))[0]
    return float(np.abs(alone - together).max())


@pytest.fixture(scope="module")
def ids(tiny_model):
    random = np.random.default_rng(0)
    return [random.integers(5, len(tiny_model.tokenizer), 12) for _ in range(32)]


def test_a_static_score_stands_alone_and_a_dynamic_one_does_not(tiny_model, tiny_texts, ids, tmp_path):
    (tmp_path / "static").mkdir()
    (tmp_path / "dynamic").mkdir()
    static = Int8Static().apply(tiny_model, tiny_texts, tmp_path / "static")
    dynamic = Int8Dynamic().apply(tiny_model, tiny_texts, tmp_path / "dynamic")
    assert drift(static, ids) < 1e-5
    assert drift(dynamic, ids) > 1e-4


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("int8_static", {"engine": "openvino", "calibration_texts": 4}),
        ("int8_static", {"engine": "onnx", "calibration_texts": 4}),
        ("int8_dynamic", {}),
    ],
    ids=["static, OpenVINO", "static, ONNX", "dynamic, ONNX"],
)
def test_int8_takes_at_most_27_percent_of_fp32_embeddings_too(name, options, tiny_texts, tmp_path):
    # BERT's own width: a graph's nodes take some 0.3 MB whatever the width, 2 % of a network of 384 units
    shape = {"hidden_size": 768, "num_hidden_layers": 2, "num_attention_heads": 12, "intermediate_size": 3072}
    wide = small_encoder(tiny_texts.train, tiny_texts.labels, vocabulary=300, **shape)
    method = build(f"quantize.{name}", options)
    size = {}
    for label, each in {"fp32": build(f"export.{method.gives}", {}), "int8": method}.items():
        (tmp_path / label).mkdir()
        each.apply(wide, tiny_texts, tmp_path / label)
        graph = [path for path in (tmp_path / label).iterdir() if path.name.startswith(("model", "openvino"))]
        size[label] = sum(path.stat().st_size for path in graph)
    unused = wide.network.config.type_vocab_size * wide.network.config.hidden_size  # exporters fold token types away
    assert size["fp32"] > 4 * (wide.network.num_parameters() - unused)
    assert size["int8"] <= 0.27 * size["fp32"]


def accuracy(model: TextModel, texts) -> float:
    return float(np.mean(_hits(model, texts)))


def _hits(model: TextModel, texts) -> np.ndarray:
    answers = scorer_of(model).logits(texts.texts).argmax(1)
    return np.array([model.labels[i] == label for i, label in zip(answers, texts.labels, strict=True)])


def test_the_planted_channel_changes_hardly_anything_at_full_precision(tiny_model, hurt_model, tiny_texts):
    before, after = (_hits(model, tiny_texts.test) for model in (tiny_model, hurt_model))
    assert np.mean(before == after) > 0.98


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_smooth_quant_holds_what_plain_ranges_lose(engine, hurt_model, tiny_texts, tmp_path):
    model, texts = hurt_model, tiny_texts.test.texts
    before = scorer_of(model).logits(texts)
    moved = {}
    for alpha in (0.0, 0.95):
        folder = tmp_path / str(alpha)
        folder.mkdir()
        made = Int8Static(engine=engine, smooth_quant=alpha).apply(model, tiny_texts, folder)
        moved[alpha] = float(np.abs(scorer_of(made).logits(texts) - before).mean())
    assert moved[0.95] < moved[0.0] / 2


@pytest.mark.slow
def test_training_with_rounding_wins_back_what_rounding_loses(hurt_model, tiny_texts, tmp_path):
    options = {"engine": "onnx", "ranges": "minmax"}
    (tmp_path / "ptq").mkdir()
    (tmp_path / "qat").mkdir()
    ptq = Int8Static(**options).apply(hurt_model, tiny_texts, tmp_path / "ptq")
    qat = Qat(**options, epochs=6, learning_rate=5e-3).apply(hurt_model, tiny_texts, tmp_path / "qat")
    was, now = (_hits(each, tiny_texts.test) for each in (ptq, qat))
    assert share_change(was, now).low > 0, f"{was.mean()} -> {now.mean()}"


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_a_kept_layer_keeps_its_numbers(engine, tiny_model, tiny_texts, tmp_path):
    every = Int8Static(engine=engine, calibration_texts=8)
    (tmp_path / "all").mkdir()
    (tmp_path / "kept").mkdir()
    assert read(every.apply(tiny_model, tiny_texts, tmp_path / "all")) == {}
    made = every.keeping(("*.0.output.dense", "classifier")).apply(tiny_model, tiny_texts, tmp_path / "kept")
    # SmoothQuant may have scaled them, in floats
    assert sorted(weight.size for weight in read(made).values()) == [3 * 32, 32 * 64]
    assert all(weight.dtype == np.float32 for weight in read(made).values())


@pytest.fixture(scope="module")
def beyond_half(tiny_model) -> tuple[TextModel, str]:
    """The same function, and the layer whose weights fp16 cannot say: a million times smaller, its inputs larger."""
    net = deepcopy(tiny_model.network)
    attention = net.bert.encoder.layer[0].attention
    with torch.no_grad():
        attention.self.value.weight[:16] *= 1e6
        attention.self.value.bias[:16] *= 1e6
        attention.output.dense.weight[:, :16] /= 1e6  # of half of them: OpenVINO leaves a layer where it is most
    return tiny_model.with_net(net), "bert.encoder.layer.0.attention.output.dense"


def test_what_fp16_cannot_say_stays_in_fp32(beyond_half, tiny_texts, tmp_path):
    model, layer = beyond_half
    texts, found = tiny_texts.test.texts, {}
    expected = scorer_of(model).logits(texts)
    for name, method in {"all": Half(), "kept": Half().keeping((layer, "*.0.attention.self.value"))}.items():
        made = method.apply(model, tiny_texts, tmp_path / name)
        found[name] = float(np.abs(scorer_of(made).logits(texts) - expected).max())
    assert found["kept"] < 0.02 < found["all"]
    assert sorted(weight.size for weight in read(made).values()) == [32 * 32, 32 * 32]
    first, second, *_ = sensitivities(model, tiny_texts, 0, Half().rounding)
    # what multiplies by a million may be beyond fp16 as well, and then comes first
    assert layer in (first, second)
    assert first in (layer, layer.replace("output.dense", "self.value"))


def test_a_torch_network_in_half_has_no_layer_to_leave():
    with pytest.raises(ConfigError, match=r"engine='torch': .* keep and max_quality_drop are for engine=openvino"):
        Half(engine="torch", dtype="bf16", max_quality_drop=0.01)


def test_torchao_leaves_layers_too(tiny_model, tiny_texts, tmp_path):
    layers = ("*.0.output.dense", "bert.pooler.dense")
    made = TorchAo().keeping(layers).apply(tiny_model, tiny_texts, tmp_path)
    made.save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    whole = {name.removesuffix(".weight") for name, weight in weights.items() if weight.dtype == torch.float32}
    assert {"bert.encoder.layer.0.output.dense", "bert.pooler.dense"} <= whole
    assert "bert.encoder.layer.1.output.dense" not in whole


def test_dynamic_int8_keeps_layers_too(tiny_model, tiny_texts, tmp_path):
    layers = ("*.0.output.dense", "classifier")  # a MatMul and a Gemm
    made = Int8Dynamic().keeping(layers).apply(tiny_model, tiny_texts, tmp_path)
    assert sorted(weight.size for weight in read(made).values()) == [3 * 32, 32 * 64]


@pytest.mark.parametrize(
    ("engine", "ranges"), [("openvino", "nncf"), ("onnx", "nncf"), ("onnx", "minmax"), ("onnx", "percentile")]
)
def test_the_observed_ranges_are_an_artifact(engine, ranges, tiny_model, tiny_texts, tmp_path):
    Int8Static(engine=engine, ranges=ranges, calibration_texts=16).apply(tiny_model, tiny_texts, tmp_path)
    found = json.loads((tmp_path / "ranges.json").read_text())
    assert len(found) >= 8  # each of two blocks has four different inputs of layers
    assert all(low <= 0 <= high and low < high for low, high in found.values())


def test_percentiles_cut_what_minmax_holds(tiny_model, tiny_texts, tmp_path):
    width = {}
    for ranges in ("minmax", "percentile"):
        folder = tmp_path / ranges
        folder.mkdir()
        Int8Static(engine="onnx", ranges=ranges, calibration_texts=32).apply(tiny_model, tiny_texts, folder)
        found = json.loads((folder / "ranges.json").read_text())
        width[ranges] = sum(high - low for low, high in found.values())
    assert width["percentile"] < width["minmax"]


def test_half_of_a_torch_network_is_refused_where_it_would_be_emulated(tiny_model, tiny_texts, tmp_path):
    if times_as_slow(torch.float16, torch.device("cpu")) > 1.5:
        with pytest.raises(ConfigError, match=r"dtype='fp16': this machine emulates it, .* took \d+\.\d times as long"):
            Half(engine="torch", dtype="fp16").apply(tiny_model, tiny_texts, tmp_path)
    else:
        made = Half(engine="torch", dtype="fp16").apply(tiny_model, tiny_texts, tmp_path)
        assert made.network.dtype == torch.float16
    assert 0.5 < times_as_slow(torch.float32, torch.device("cpu")) < 2


def test_bf16_halves_a_torch_network_which_plain_from_pretrained_loads(tiny_model, tiny_texts, tmp_path):
    made = Half(engine="torch", dtype="bf16").apply(tiny_model, tiny_texts, tmp_path)
    made.save(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert again.dtype == torch.bfloat16
    size = (tmp_path / "model.safetensors").stat().st_size
    assert size < 0.52 * 4 * sum(p.numel() for p in tiny_model.network.parameters()) + 20_000
    assert accuracy(made, tiny_texts.test) >= accuracy(tiny_model, tiny_texts.test) - 0.05


def test_bad_input_says_what_to_do(tiny_model, tiny_texts, tmp_path):
    empty = replace(tiny_texts, train=Texts(()))
    with pytest.raises(DataError, match="calibration needs texts of the train split, and it is empty"):
        Int8Static().apply(tiny_model, empty, tmp_path)
    with pytest.raises(DataError, match="max_quality_drop needs a dev split with labels"):
        Int8Static(max_quality_drop=0.01).check(tiny_model, replace(tiny_texts, dev=Texts(())))
    with pytest.raises(ConfigError, match="ranges='entropy': that is onnxruntime's; give engine=onnx"):
        Int8Static(ranges="entropy")
    with pytest.raises(ConfigError, match="dtype='bf16': an OpenVINO graph keeps its weights in fp16"):
        Half(dtype="bf16")
    with pytest.raises(ModelError, match="no layer is named 'nonsense'"):
        Int8Static(keep="nonsense").check(tiny_model, tiny_texts)


def test_live_masks_are_refused(tiny_model, tiny_texts):
    masked = tiny_model.with_net(deepcopy(tiny_model.network))
    prune.l1_unstructured(masked.network.classifier, "weight", amount=0.5)
    with pytest.raises(ModelError, match=r"classifier and 0 more layers have live masks .* make them permanent"):
        Int8Static().check(masked, tiny_texts)
    prune.remove(masked.network.classifier, "weight")
    Int8Static().check(masked, tiny_texts)


def test_torchao_packs_the_linear_layers_and_nothing_else(tiny_model, tiny_texts, tmp_path):
    made = TorchAo().apply(tiny_model, tiny_texts, tmp_path)
    made.save(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    weights = {name: weight.dtype for name, weight in load_file(tmp_path / "model.safetensors").items()}
    packed = {name.rpartition(".")[0].removesuffix(".weight") for name, dtype in weights.items() if dtype == torch.int8}
    assert packed and packed <= set(weighted_layers(tiny_model.network))
    assert weights["bert.embeddings.word_embeddings.weight"] == torch.float32
    before = made.run(pad([np.arange(5, 20)], made.pad_id))
    np.testing.assert_array_equal(tiny_model.with_net(again.eval()).run(pad([np.arange(5, 20)], made.pad_id)), before)
    assert count_parameters(made.network)[0] == count_parameters(tiny_model.network)[0]
    with pytest.raises(ModelError, match="already quantized; start from the version it was made from"):
        Int8Static().check(made, tiny_texts)


def test_a_missing_torchao_names_the_extra(tiny_model, tiny_texts, monkeypatch):
    monkeypatch.setattr("mlflow_llmops.methods.quantize.torchao.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'mlflow-llmops\[torchao\]'"):
        TorchAo().check(tiny_model, tiny_texts)
