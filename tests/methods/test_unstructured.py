"""Zeros where the formulas say, as many as asked for, in every family; and they stay zeros."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.errors import ConfigError, DataError, ModelError
from mlflow_llmops.measure.likelihood import likelihoods
from mlflow_llmops.methods._calibration import calibration_texts, tensors
from mlflow_llmops.methods._inputs import by_block, collected, gram, inner_layers, squares
from mlflow_llmops.methods._surgery import unit_weights
from mlflow_llmops.methods.prune._masks import Pattern, in_layer, in_rows
from mlflow_llmops.methods.prune.magnitude import Magnitude
from mlflow_llmops.methods.prune.sparsegpt import SparseGPT, solve
from mlflow_llmops.methods.prune.wanda import Wanda
from mlflow_llmops.models.load import load
from tests.networks import CAUSAL, untrained

NOWHERE = Path("unused")
FAMILIES = {"bert": {}, "distilbert": {}, "gpt2": {"n_inner": 48}, "llama": {"tie_word_embeddings": False}}
METHODS = {"magnitude": Magnitude, "wanda": Wanda, "sparsegpt": SparseGPT}


def weights(net, keep=None):
    return {name: unit_weights(layer, outputs=True).detach().clone() for name, layer in inner_layers(net, keep).items()}


@pytest.fixture(params=FAMILIES)
def family(request, tiny_model, tiny_decoder):
    """A network of the family behind the tokenizer of a trained one."""
    like = tiny_decoder if request.param in CAUSAL else tiny_model
    return like.with_net(untrained(request.param, len(like.tokenizer), layers=2, **FAMILIES[request.param]))


@pytest.mark.parametrize("name", METHODS)
def test_every_family_gets_as_many_zeros_as_asked_for_in_its_body_alone(name, family, tiny_texts):
    method = METHODS[name](fraction=0.25, recovery="none", calibration_texts=16)
    method.check(family, tiny_texts)
    made = method.apply(family, tiny_texts, NOWHERE)
    shares = [float((weight == 0).float().mean()) for weight in weights(made.network).values()]
    assert len(shares) >= 8
    np.testing.assert_allclose(shares, 0.25, atol=0.01)
    others = {id(layer.weight) for layer in inner_layers(made.network).values()}
    for (key, before), after in zip(family.network.named_parameters(), made.network.parameters(), strict=True):
        if id(after) not in others:
            assert torch.equal(before, after), key


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:8"])
def test_a_pattern_is_exact_in_every_stretch(name, pattern, tiny_model, tiny_texts):
    made = METHODS[name](pattern=pattern, recovery="none", calibration_texts=16).apply(tiny_model, tiny_texts, NOWHERE)
    zeros, of = Pattern.read(pattern).zeros, Pattern.read(pattern).of
    for weight in weights(made.network).values():
        assert ((weight == 0).reshape(-1, of).sum(1) == zeros).all()


def test_magnitude_cuts_the_smallest_of_a_layer_or_of_all(tiny_model, tiny_texts):
    before = weights(tiny_model.network)
    by_layer, by_all = (
        weights(Magnitude(fraction=0.3, scope=scope, recovery="none").apply(tiny_model, tiny_texts, NOWHERE).network)
        for scope in ("layer", "global")
    )
    everything = torch.cat([weight.flatten() for weight in before.values()]).abs()
    edge = everything.sort().values[round(0.3 * len(everything)) - 1]
    for name, weight in before.items():
        own = weight.abs().flatten().sort().values[round(0.3 * weight.numel()) - 1]
        assert torch.equal(by_layer[name] == 0, weight.abs() <= own)
        assert torch.equal(by_all[name] == 0, weight.abs() <= edge)
        assert torch.equal(by_all[name], torch.where(weight.abs() <= edge, 0.0, weight))


def test_wandas_zeros_are_those_of_the_formula(tiny_model, tiny_texts):
    """|W_ij| * ||X_j||, the lowest half of every output, as it stands in the paper."""
    made = Wanda(recovery="none", calibration_texts=8).apply(tiny_model, tiny_texts, NOWHERE, seed=3)
    texts = calibration_texts(tiny_texts, 8, 3).texts
    net = tiny_model.network
    name = "bert.encoder.layer.1.intermediate.dense"
    with torch.no_grad():
        states = []
        for batch in tensors(tiny_model, texts):
            hidden = net.bert(**batch, output_hidden_states=True).hidden_states[1]
            states.append(net.bert.encoder.layer[1].attention(hidden)[0][0])
        seen = torch.cat(states)
    weight = weights(net)[name]
    expected = weight.clone()
    for row in range(weight.shape[0]):
        scores = [abs(weight[row, j]) * seen[:, j].norm() for j in range(weight.shape[1])]
        for j in sorted(range(len(scores)), key=lambda j: scores[j])[: weight.shape[1] // 2]:
            expected[row, j] = 0
    assert torch.equal(weights(made.network)[name], expected)


def test_sparsegpt_with_inputs_alike_is_magnitude():
    torch.manual_seed(0)
    weight = torch.randn(12, 96)
    found, mask = solve(weight, torch.eye(96), 0.5)
    assert torch.equal(mask, in_layer(weight.abs(), 0.5))
    torch.testing.assert_close(found, weight.masked_fill(mask, 0.0))
    found, mask = solve(weight, 7 * torch.eye(96), 0.5, Pattern(2, 4))
    assert torch.equal(mask, in_rows(weight.abs(), 0.5, Pattern(2, 4)))
    torch.testing.assert_close(found, weight.masked_fill(mask, 0.0))


def test_sparsegpts_weights_are_the_least_squares_of_those_that_are_left():
    """With a single zero, the one in front, the later weights are what a regression on the layer's outputs gives."""
    torch.manual_seed(0)
    inputs = torch.randn(200, 6) @ torch.randn(6, 6)
    weight = torch.tensor([[1e-3, 1.0, -2.0, 3.0, 0.5, 2.0]])
    found, mask = solve(weight, inputs.T @ inputs, 1 / 6, damping=1e-8)
    assert mask.tolist() == [[True, *[False] * 5]]
    fitted = torch.linalg.lstsq(inputs[:, 1:], inputs @ weight.T).solution
    torch.testing.assert_close(found[0, 1:], fitted[:, 0], atol=1e-4, rtol=1e-4)


def test_a_silent_input_gets_zeros_and_no_division_by_nothing():
    inputs = torch.randn(64, 8)
    inputs[:, 3] = 0
    found, _ = solve(torch.ones(4, 8), inputs.T @ inputs, 0.25)
    assert torch.isfinite(found).all()
    assert (found[:, 3] == 0).all()


@pytest.mark.parametrize("pattern", [None, Pattern(2, 4)])
def test_outputs_lose_less_the_more_a_method_looks_at(pattern, tiny_decoder, tiny_texts):
    """On the calibration texts, over all layers: SparseGPT at most as much as Wanda, Wanda as magnitude."""
    net = tiny_decoder.network
    batches = tensors(tiny_decoder, tiny_texts.train.texts[:64])
    products = collected(net, inner_layers(net), batches, gram)
    lost = {"magnitude": 0.0, "wanda": 0.0, "sparsegpt": 0.0}
    for name, weight in weights(net).items():
        norms = products[name].diagonal().sqrt()
        made = {
            "magnitude": weight.masked_fill(in_rows(weight.abs(), 0.5, pattern), 0.0),
            "wanda": weight.masked_fill(in_rows(weight.abs() * norms, 0.5, pattern), 0.0),
            "sparsegpt": solve(weight, products[name], 0.5, pattern)[0],
        }
        whole = (weight @ products[name] * weight).sum()
        for method, changed in made.items():
            off = changed - weight
            lost[method] += float((off @ products[name] * off).sum() / whole)
    assert lost["sparsegpt"] < 0.8 * lost["wanda"] < 0.8 * lost["magnitude"]


def test_what_is_collected_is_what_the_layers_see(tiny_model):
    net = tiny_model.network
    layers = inner_layers(net, "*.query")
    batches = [{"input_ids": torch.tensor([[5, 6, 7]])}, {"input_ids": torch.tensor([[8], [9]])}]
    seen = [net.bert(**batch, output_hidden_states=True).hidden_states[1].flatten(0, 1) for batch in batches]
    inputs = torch.cat(seen).detach()
    name = "bert.encoder.layer.1.attention.self.key"
    torch.testing.assert_close(collected(net, layers, batches, squares)[name], inputs.square().sum(0))
    torch.testing.assert_close(collected(net, layers, batches, gram)[name], inputs.T @ inputs)
    assert [len(block) for block in by_block(tuple(layers))] == [5, 5, 1]
    assert "classifier" not in layers


@pytest.mark.parametrize("recovery", ["distill", "full"])
def test_zeros_stay_zeros_while_the_others_are_trained_and_in_what_is_saved(recovery, tiny_model, tiny_texts, tmp_path):
    method = Wanda(fraction=0.6, recovery=recovery, batch_size=32, calibration_texts=16, rounds=2)
    made = method.apply(tiny_model, tiny_texts, NOWHERE)
    cut = replace(method, recovery="none", rounds=1).apply(tiny_model, tiny_texts, NOWHERE)
    made.save(tmp_path)
    loaded = weights(load(str(tmp_path)).network)
    for name, weight in weights(made.network).items():
        assert torch.equal(loaded[name], weight)
        assert abs(float((weight == 0).float().mean()) - 0.6) < 0.02
        assert not torch.equal(weight[weight != 0], weights(cut.network)[name][weight != 0])
    assert not any(parameter._backward_hooks for parameter in made.network.parameters())


def test_gpt2s_layers_hold_their_zeros_too(tiny_decoder, tiny_texts):
    torch.manual_seed(0)
    given = tiny_decoder.with_net(untrained("gpt2", len(tiny_decoder.tokenizer), layers=2, n_inner=48))
    few = replace(tiny_texts, train=tiny_texts.train.pick(range(64)))
    made = Magnitude(fraction=0.5, recovery="full").apply(given, few, NOWHERE)
    for weight in weights(made.network).values():
        assert abs(float((weight == 0).float().mean()) - 0.5) < 0.01


def test_from_scratch_has_the_same_zeros_and_other_weights(tiny_model, tiny_texts):
    method = Magnitude(fraction=0.5, recovery="full", control="from_scratch", batch_size=64)
    few = replace(tiny_texts, train=tiny_texts.train.pick(range(128)))
    cut, drawn = method.apply(tiny_model, few, NOWHERE), method.from_scratch(tiny_model, few)
    for name, weight in weights(drawn.network).items():
        assert torch.equal(weight == 0, weights(cut.network)[name] == 0)
        assert not torch.equal(weight, weights(cut.network)[name])


def test_sparsegpt_loses_less_likelihood_than_magnitude(tiny_decoder, tiny_texts):
    """Held-out texts; Wanda is not told apart from either on a network this small: benchmarks/sparsity.py."""

    def held(method) -> float:
        made = method.apply(tiny_decoder, tiny_texts, NOWHERE)
        return float(np.concatenate(likelihoods(made, tiny_texts.test.texts).log).mean())

    options = {"fraction": 0.6, "recovery": "none", "calibration_texts": 64}
    assert held(SparseGPT(**options)) > held(Magnitude(**options))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fraction": 0}, "^fraction=0: "),
        ({"fraction": 1}, "^fraction=1: "),
        ({"pattern": "half"}, "^pattern='half': give zeros:weights, as 2:4"),
        ({"pattern": "4:4"}, "^pattern='4:4': give at least 1 zero and fewer than weights"),
        ({"pattern": "0:4"}, "^pattern='0:4': "),
        ({"recovery": "lora"}, "^recovery='lora': adapters are dense"),
        ({"pattern": "2:4", "rounds": 2}, "^pattern='2:4': it says how many weights become zero"),
        ({"pattern": "2:4", "max_quality_drop": 0.1}, "^pattern='2:4': it says how many weights become zero"),
        ({"pattern": "2:4", "scope": "global"}, "^scope='global': pattern=2:4 has as many zeros everywhere"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        Magnitude(**options)


def test_models_and_data_that_do_not_fit_are_refused_in_one_line(tiny_model, tiny_texts):
    said = r"^pattern=2:5 does not divide the 32 inputs of bert.encoder.layer.0.attention.self.query; take 2:4, or keep"
    with pytest.raises(ModelError, match=said):
        Wanda(pattern="2:5").check(tiny_model, tiny_texts)
    with pytest.raises(ModelError, match="no layer is named 'querry'; near ones:"):
        Wanda(keep="querry").check(tiny_model, tiny_texts)
    with pytest.raises(ModelError, match=r"keep='\*' leaves no layer to make zeros in"):
        Wanda(keep="*").check(tiny_model, tiny_texts)
    with pytest.raises(ConfigError, match="fraction=0.001: not one of the 32 inputs"):
        Wanda(fraction=0.001).check(tiny_model, tiny_texts)
    empty = Splits(Texts(()), tiny_texts.dev, tiny_texts.test, "none")
    with pytest.raises(DataError, match="the train split, and it is empty"):
        Magnitude().check(tiny_model, empty)
    with pytest.raises(DataError, match="calibration needs texts"):
        SparseGPT(recovery="none").apply(tiny_model, empty, NOWHERE)
    Magnitude(recovery="none").apply(tiny_model, empty, NOWHERE)


def test_layers_can_be_left_whole(tiny_model, tiny_texts):
    made = SparseGPT(keep="*.query,*pooler*", recovery="none", calibration_texts=8).apply(
        tiny_model, tiny_texts, NOWHERE
    )
    before = weights(deepcopy(tiny_model.network))
    for name, weight in weights(made.network).items():
        assert torch.equal(weight, before[name]) == (name.endswith("query") or "pooler" in name)
