"""Two narrow layers give what one gave, as well as their rank allows, and leave as a graph."""

from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.errors import ConfigError, DataError, ModelError
from mlflow_llmops.methods._calibration import tensors
from mlflow_llmops.methods._inputs import collected, gram, inner_layers
from mlflow_llmops.methods._surgery import unit_weights
from mlflow_llmops.methods.factorize._low_rank import ranks_by_budget, ranks_by_energy, spectrum, two_layers
from mlflow_llmops.methods.factorize.svd import Svd
from mlflow_llmops.models.text_model import count_parameters


def drawn(outputs: int, inputs: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and inputs (tokens, inputs) that go together."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(inputs, inputs, generator=generator)
    return torch.randn(outputs, inputs, generator=generator), torch.randn(300, inputs, generator=generator) @ mixed


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16)])
@pytest.mark.parametrize("aware", [False, True])
def test_with_all_values_nothing_is_lost(shape, aware):
    weight, inputs = drawn(*shape)
    bias = torch.randn(shape[0])
    found = spectrum(weight, inputs.T @ inputs if aware else None)
    made = two_layers(found, min(shape), bias)
    torch.testing.assert_close(made(inputs), inputs @ weight.T + bias, atol=1e-3, rtol=1e-4)


def test_the_plain_one_is_the_nearest_weight_and_the_other_the_nearest_output():
    """Eckart and Young: the error is the energy of the values that are left out, and no other rank 5 is nearer."""
    weight, inputs = drawn(16, 24)
    plain, aware = spectrum(weight), spectrum(weight, inputs.T @ inputs)
    by_weight, by_output = (torch.matmul(*each.factors(5)) for each in (plain, aware))
    assert (by_weight - weight).square().sum() == pytest.approx(float(plain.values[5:].square().sum()), rel=1e-4)
    errors = [float((inputs @ (made - weight).T).square().sum()) for made in (by_output, by_weight)]
    assert errors[0] == pytest.approx(float(aware.values[5:].square().sum()), rel=1e-2)  # the damping is in the values
    assert errors[0] < errors[1]
    assert (by_weight - weight).norm() < (by_output - weight).norm()
    best = torch.linalg.svd(inputs @ weight.T).S[5:].square().sum()
    assert errors[0] == pytest.approx(float(best), rel=1e-2)


def test_fewer_tokens_than_inputs_leave_numbers():
    weight, inputs = drawn(8, 40)
    few = inputs[:10]
    made = torch.matmul(*spectrum(weight, few.T @ few).factors(8))
    torch.testing.assert_close(few @ made.T, few @ weight.T, atol=1e-2, rtol=1e-3)


def test_ranks_hold_the_energy_and_layers_that_would_not_pay_stay_whole():
    weight, _ = drawn(30, 20)
    values = torch.linalg.svd(weight).S.square()
    flat = spectrum(weight)
    low = spectrum(torch.outer(torch.randn(30), torch.randn(20)))
    ranks = ranks_by_energy({"flat": flat, "low": low}, 0.6)
    share = values.cumsum(0) / values.sum()
    assert ranks == {"flat": int((share < 0.6).sum()) + 1, "low": 1}
    assert share[ranks["flat"] - 1] >= 0.6 > share[ranks["flat"] - 2]
    assert ranks_by_energy({"flat": flat}, 0.999) == {"flat": None}
    assert flat.most * (30 + 20) < 30 * 20 <= (flat.most + 1) * (30 + 20)


def test_a_budget_goes_where_a_weight_buys_most_energy():
    flat, low = spectrum(drawn(30, 20)[0]), spectrum(drawn(30, 3)[0] @ drawn(3, 20, seed=1)[0])
    for budget in (0.3, 0.5, 0.8):
        ranks = ranks_by_budget({"flat": flat, "low": low}, budget)
        spent = sum(600 if rank is None else rank * 50 for rank in ranks.values())
        assert spent <= budget * 1200
        assert spent > budget * 1200 - 50 or ranks == {"flat": None, "low": 3}, "values of nothing are not bought"
        assert ranks["low"] == 3 or budget == 0.3
    assert ranks_by_budget({"flat": flat, "low": low}, 0.999)["flat"] is None
    assert ranks_by_budget({"flat": flat}, 0.01) == {"flat": 1}


def weights_in(net) -> int:
    return sum(unit_weights(layer, outputs=True).numel() for layer in inner_layers(net).values())


@pytest.mark.parametrize("kind", ["bert", "llama", "gpt2"])
def test_a_network_keeps_its_budget_and_its_head(kind, tiny_model, tiny_decoder, tiny_texts):
    given = tiny_model if kind == "bert" else tiny_decoder
    if kind == "gpt2":
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=400, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
        given = tiny_decoder.with_net(GPT2LMHeadModel(config).eval())
    made = Svd(budget=0.6, calibration_texts=32).factorized(given, tiny_texts, 0)
    was = weights_in(given.network)
    lost = count_parameters(given.network)[0] - count_parameters(made.network)[0]
    assert 0.33 * was < lost < 0.5 * was
    assert 0.5 * was < weights_in(made.network) <= 0.6 * was + 1
    before, after = (model.network.get_output_embeddings() or model.network.classifier for model in (given, made))
    assert torch.equal(before.weight, after.weight)


def test_fitting_outputs_loses_less_than_fitting_weights(tiny_decoder, tiny_texts):
    """On the texts that they are fitted on, over all layers."""
    net = tiny_decoder.network
    products = collected(net, inner_layers(net), tensors(tiny_decoder, tiny_texts.train.texts[:64]), gram)
    lost = [0.0, 0.0]
    for name, layer in inner_layers(net).items():
        weight = layer.weight.detach()
        for number, seen in enumerate((products[name], None)):
            off = torch.matmul(*spectrum(weight, seen).factors(8)) - weight
            lost[number] += float((off @ products[name] * off).sum())
    assert lost[0] < 0.9 * lost[1]


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_the_graph_is_that_of_the_factors(engine, tiny_model, tiny_texts, tmp_path):
    """`apply` compares it with torch at many lengths."""
    made = Svd(engine=engine, recovery="none", calibration_texts=32).apply(tiny_model, tiny_texts, tmp_path)
    assert made.kind == engine
    assert made.artifact.precision == "fp32, low rank"
    assert made.artifact.parameters < count_parameters(tiny_model.network)[0]


def test_what_means_nothing_is_refused_in_one_line(tiny_model, tiny_texts):
    for bad in (0, 1):
        with pytest.raises(ConfigError, match=f"^budget={bad}: "):
            Svd(budget=bad)
        with pytest.raises(ConfigError, match=f"^energy={bad}: "):
            Svd(energy=bad)
    with pytest.raises(ConfigError, match=r"^budget=0.5: energy=0.9 sets the ranks already"):
        Svd(budget=0.5, energy=0.9)
    with pytest.raises(ConfigError, match=r"^energy=1: no layer would have fewer weights as two; give less"):
        Svd(energy=1 - 1e-12).factorized(tiny_model, tiny_texts, 0)
    with pytest.raises(ModelError, match=r"keep='\*' leaves no layer to factorize"):
        Svd(keep="*").check(tiny_model, tiny_texts)
    empty = Splits(Texts(()), tiny_texts.dev, tiny_texts.test, "none")
    with pytest.raises(DataError, match="^recovery=distill needs texts in the train split; give data with some"):
        Svd().check(tiny_model, empty)
    with pytest.raises(DataError, match="^activation_aware=True needs texts of the train split"):
        Svd(recovery="none").check(tiny_model, empty)
    Svd(recovery="none", activation_aware=False).check(tiny_model, empty)
    unlabelled = replace(tiny_texts, train=Texts(tiny_texts.train.texts))
    with pytest.raises(DataError, match="^recovery=distill needs labels in the train split"):
        Svd().check(tiny_model, unlabelled)


def test_layers_that_are_kept_stay_as_they_are(tiny_model, tiny_texts):
    made = Svd(keep="*.query", calibration_texts=16).factorized(tiny_model, tiny_texts, 0)
    layers = inner_layers(made.network)
    name = "bert.encoder.layer.0.attention.self.query"
    assert torch.equal(layers[name].weight, tiny_model.network.get_submodule(name).weight)
    assert {"bert.encoder.layer.0.output.dense.0", "bert.encoder.layer.0.output.dense.1"} <= layers.keys()
