"""Cutting a unit is the same as masking it, in every family; and the right units are cut."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize, prune
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from mlflow_llmops.errors import ConfigError, ModelError
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods._surgery import family_of, feed_forwards, keep_units, unit_weights
from mlflow_llmops.methods.prune._importance import mean_inputs
from mlflow_llmops.methods.prune.neurons import Neurons, readers_of
from tests.networks import shaken, untrained

NOWHERE = Path("unused")
FAMILIES = {"bert": {}, "distilbert": {}, "gpt2": {"n_inner": 48}, "llama": {"num_key_value_heads": 4}}


def net_of(family: str):
    return shaken(untrained(family, **FAMILIES[family]), 0.05)


def answer(net) -> torch.Tensor:
    ids = torch.randint(3, 50, (3, 7), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return net(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def masked(net, kept: list[torch.Tensor]):
    """A copy in which every unit that is not kept gives zero to what reads it."""
    copy = deepcopy(net)
    for layer, positions in zip(feed_forwards(copy), kept, strict=True):
        mask = torch.zeros(unit_weights(layer.reader, outputs=False).shape[0])
        mask[positions] = 1
        layer.reader.register_forward_pre_hook(lambda module, inputs, mask=mask: (inputs[0] * mask,))
    return copy


def cut(net, kept: list[torch.Tensor]):
    """A copy without the units that are not kept."""
    copy = deepcopy(net)
    for layer, positions in zip(feed_forwards(copy), kept, strict=True):
        for writer in layer.writers:
            keep_units(writer, positions, outputs=True)
        keep_units(layer.reader, positions, outputs=False)
    setattr(copy.config, family_of(copy).units, len(kept[0]))
    return copy


def drawn(net, count: int, seed: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    sizes = [unit_weights(layer.reader, outputs=False).shape[0] for layer in feed_forwards(net)]
    return [torch.randperm(size, generator=random)[:count].sort().values for size in sizes]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_network_answers_as_the_full_one_with_those_units_masked(family):
    net = net_of(family)
    kept = drawn(net, 16, seed=2)
    assert len(kept) == 3, "a block was missed"
    torch.testing.assert_close(answer(cut(net, kept)), answer(masked(net, kept)), atol=1e-5, rtol=1e-5)
    assert (answer(cut(net, kept)) - answer(net)).abs().max() > 1e-3, "the cut units must have mattered"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_network_is_smaller_and_reloads_as_its_stock_class(family, tmp_path):
    net = net_of(family)
    small = cut(net, drawn(net, 16, seed=3))
    matrices = 3 if family == "llama" else 2
    biases = 0 if family == "llama" else 1
    assert net.num_parameters() - small.num_parameters() == 3 * (48 - 16) * (matrices * 32 + biases)
    small.save_pretrained(tmp_path)
    torch.testing.assert_close(answer(type(net).from_pretrained(tmp_path).eval()), answer(small))


def kept_of(net, pruned) -> list[torch.Tensor]:
    """Which units of `net` stand in `pruned`, found by their weights."""
    found = []
    for full, small in zip(feed_forwards(net), feed_forwards(pruned), strict=True):
        before, after = (unit_weights(layer.writers[0], outputs=True) for layer in (full, small))
        same = (after[:, None] == before[None]).all(-1)
        assert (same.sum(1) == 1).all()
        found.append(same.int().argmax(1))
    return found


@pytest.mark.parametrize("importance", ["activation", "magnitude", "taylor", "random"])
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_the_method_without_recovery_is_the_mask_too(tiny_model, tiny_texts, family, importance):
    torch.manual_seed(1)
    net = tiny_model.network
    if family == "distilbert":
        shape = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "num_labels": 3}
        net = DistilBertForSequenceClassification(
            DistilBertConfig(vocab_size=len(tiny_model.tokenizer), **shape)
        ).eval()
    model = tiny_model.with_net(net)
    method = Neurons(fraction=0.5, importance=importance, recovery="none")
    pruned = method.apply(model, tiny_texts, NOWHERE).network
    kept = kept_of(net, pruned)
    assert [len(positions) for positions in kept] == [32, 32]
    torch.testing.assert_close(answer(pruned), answer(masked(net, kept)), atol=1e-5, rtol=1e-5)


def test_magnitude_keeps_the_units_with_the_largest_weights(tiny_model, tiny_texts):
    model = tiny_model.with_net(deepcopy(tiny_model.network))
    layer = feed_forwards(model.network)[1]
    with torch.no_grad():
        for unit in (3, 40, 63):
            layer.writers[0].weight[unit] *= 100
    pruned = Neurons(fraction=0.8, importance="magnitude", recovery="none").apply(model, tiny_texts, NOWHERE)
    assert {3, 40, 63} <= set(kept_of(model.network, pruned.network)[1].tolist())


def test_mean_activations_are_the_means_of_what_the_reader_gets():
    net = net_of("bert")
    batches = [{"input_ids": torch.tensor([[5, 6, 7]])}, {"input_ids": torch.tensor([[8], [9]])}]
    got = mean_inputs(net, readers_of(net), batches, torch.abs)
    with torch.no_grad():
        states = [net.bert(**batch, output_hidden_states=True) for batch in batches]
        block = net.bert.encoder.layer[0]
        entered = [block.attention(state.hidden_states[0])[0] for state in states]
        units = torch.cat([block.intermediate(entry).abs().flatten(0, 1) for entry in entered])
    torch.testing.assert_close(got["0"], units.mean(0))
    assert len(units) == 5


def held_out_loss(model, texts) -> float:
    """Cross entropy with the labels of texts that no training saw."""
    numbers = torch.tensor([model.labels.index(label) for label in texts.labels])
    return torch.nn.functional.cross_entropy(torch.from_numpy(scorer_of(model).logits(texts.texts)), numbers).item()


def test_activation_beats_random_cutting(tiny_model, tiny_texts):
    method = Neurons(fraction=0.75, importance="activation", recovery="none")
    ours = held_out_loss(method.apply(tiny_model, tiny_texts, NOWHERE), tiny_texts.test)
    randomly = [cut(tiny_model.network, drawn(tiny_model.network, 16, seed)) for seed in range(20)]
    rivals = [held_out_loss(tiny_model.with_net(net), tiny_texts.test) for net in randomly]
    assert ours < np.median(rivals)


def test_recovery_wins_quality_back(tiny_model, tiny_texts):
    without, recovered = (
        Neurons(fraction=0.85, recovery=recovery, batch_size=16).apply(tiny_model, tiny_texts, NOWHERE)
        for recovery in ("none", "distill")
    )
    assert held_out_loss(recovered, tiny_texts.test) < held_out_loss(without, tiny_texts.test)


def test_units_go_in_eights_and_never_all(tiny_model, tiny_texts):
    def units(fraction: float) -> int:
        pruned = Neurons(fraction=fraction, importance="magnitude", recovery="none").apply(
            tiny_model, tiny_texts, NOWHERE
        )
        assert pruned.network.config.intermediate_size == feed_forwards(pruned.network)[0].reader.in_features
        return pruned.network.config.intermediate_size

    assert [units(fraction) for fraction in (0.1, 0.5, 0.7, 0.99)] == [56, 32, 16, 8]


def test_a_fraction_that_cuts_nothing_is_refused(tiny_model, tiny_texts):
    with pytest.raises(ConfigError, match=r"fraction=0.01: nothing would be cut from 64 units"):
        Neurons(fraction=0.01, recovery="none").apply(tiny_model, tiny_texts, NOWHERE)


def test_an_unknown_family_names_the_known():
    config = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    with pytest.raises(ModelError, match=r"family t5 cannot be cut yet; those that can: bert, .*llama"):
        feed_forwards(T5ForConditionalGeneration(config))


@pytest.mark.parametrize("how", ["parametrization", "pruning mask"])
def test_a_masked_layer_is_refused(how):
    layer = feed_forwards(net_of("bert"))[0].reader
    if how == "parametrization":
        parametrize.register_parametrization(layer, "weight", torch.nn.Identity())
    else:
        prune.l1_unstructured(layer, "weight", 0.5)
    with pytest.raises(ModelError, match="Linear cannot be cut; make masks permanent"):
        keep_units(layer, torch.arange(8), outputs=False)
    with pytest.raises(ModelError, match="make masks permanent"):
        unit_weights(layer, outputs=False)
