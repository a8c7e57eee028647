"""Heads, blocks and hidden channels: a network without them is the whole one with them masked, in every family."""

import json
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from mlflow_llmops.errors import ConfigError, ModelError
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods import table
from mlflow_llmops.methods._blocks import keep_blocks, transformer_blocks
from mlflow_llmops.methods._heads import attentions, keep_groups
from mlflow_llmops.methods._surgery import check_stock
from mlflow_llmops.methods._width import keep_channels, stream
from mlflow_llmops.methods.prune._groups import CHANNELS, OWN, group_scores, most
from mlflow_llmops.methods.prune.heads import Heads
from mlflow_llmops.methods.prune.layers import Layers, changes
from mlflow_llmops.methods.prune.width import Width
from tests.networks import CAUSAL, FAMILIES, shaken, untrained

NOWHERE = Path("unused")
TIED = ("bert", "roberta", "electra", "distilbert", "gpt2")


def net_of(family: str, words: int = 50):
    return shaken(untrained(family, words), 0.1)


@pytest.fixture
def model_of(tiny_model, tiny_decoder):
    """An untrained network of a family, with the tokenizer of a trained tiny one."""

    def made(family: str):
        like = tiny_decoder if family in CAUSAL else tiny_model
        return like.with_net(net_of(family, len(like.tokenizer)))

    return made


def answer(net) -> torch.Tensor:
    ids = torch.randint(3, 50, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    with torch.no_grad():
        return net(input_ids=ids, attention_mask=mask).logits


def without_heads(net, kept):
    """A copy in which heads that are not kept give zeros to the layer that reads them."""
    copy = deepcopy(net)
    for each, groups in zip(attentions(copy), kept, strict=True):
        mask = torch.zeros(each.groups, each.shared * each.size)
        mask[groups] = 1
        each.output.register_forward_pre_hook(lambda module, inputs, mask=mask: (inputs[0] * mask.flatten(),))
    return copy


def without_blocks(net, kept):
    """A copy in which the other blocks hand on what they are given."""
    copy = deepcopy(net)
    for number, block in enumerate(transformer_blocks(copy)):
        if number not in kept:
            block.register_forward_hook(lambda module, inputs, output: inputs[0])
    return copy


def without_channels(net, kept, own):
    """A copy whose norms see and give the channels `kept` alone, and zeros for the others."""
    copy = deepcopy(net)
    found = stream(copy)
    for norm in found.norms:
        small = deepcopy(norm)
        small.weight = torch.nn.Parameter(norm.weight[kept])
        if getattr(norm, "bias", None) is not None:
            small.bias = torch.nn.Parameter(norm.bias[kept])
        if hasattr(norm, "normalized_shape"):
            small.normalized_shape = (len(kept),)

        def masked(module, inputs, output, small=small):
            return torch.zeros_like(output).index_copy(-1, kept, small(inputs[0][..., kept]))

        norm.register_forward_hook(masked)
    if net.config.model_type == "electra":  # its blocks read the projected embeddings, which no norm has seen
        mask = torch.zeros(net.config.hidden_size).index_fill(0, kept, 1)
        copy.electra.embeddings_project.register_forward_hook(lambda module, inputs, output, mask=mask: output * mask)
    if found.own:
        mask = torch.zeros(net.config.hidden_size).index_fill(0, own, 1)
        found.own[1].register_forward_pre_hook(lambda module, inputs, mask=mask: (inputs[0] * mask,))
    return copy


def close(small, masked, full):
    torch.testing.assert_close(answer(small), answer(masked), atol=2e-5, rtol=1e-4)
    assert (answer(small) - answer(full)).abs().max() > 1e-3, "what was cut must have mattered"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_without_heads_is_the_whole_one_with_them_masked(family):
    net = net_of(family)
    groups = attentions(net)[0].groups
    assert groups == (4 if family in TIED else 2)
    kept = [torch.tensor([i % groups]) if groups == 2 else torch.tensor([i % 2, 3]) for i in range(3)]
    small = deepcopy(net)
    keep_groups(small, kept)
    close(small, without_heads(net, kept), net)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_without_blocks_is_the_whole_one_with_them_handing_on(family):
    net = net_of(family)
    small = deepcopy(net)
    keep_blocks(small, [0, 2])
    check_stock(small)
    close(small, without_blocks(net, [0, 2]), net)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_without_channels_is_the_whole_one_with_norms_that_see_none_of_them(family):
    net = net_of(family)
    draw = torch.Generator().manual_seed(0)
    kept, own = (torch.randperm(32, generator=draw)[:16].sort().values for _ in range(2))
    heads = [torch.tensor([1, 2])] * 3
    small, masked = deepcopy(net), without_channels(net, kept, own)
    if family in TIED:
        keep_groups(small, heads)
        masked = without_heads(masked, heads)
    keep_channels(small, kept, own)
    check_stock(small)
    close(small, masked, net)


@pytest.mark.parametrize("importance", ["taylor", "activation", "magnitude", "random"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2", "llama"])
def test_the_methods_cut_what_their_scores_say(model_of, tiny_texts, family, importance):
    model, texts = model_of(family), tiny_texts.train.pick(range(16))
    net = model.network
    heads = Heads(fraction=0.5, importance=importance, recovery="none", calibration_texts=16)
    width = Width(fraction=0.5, importance=importance, recovery="none", calibration_texts=16)
    for method in (heads, width):
        scores = method.scores(model, texts, 0)
        assert all(torch.isfinite(score).all() and score.min() >= 0 for score in scores.values())
        small = method.cut(model.with_net(deepcopy(net)), scores, 0.5, model).network
        masked = net
        if family in TIED or method is heads:
            masked = without_heads(masked, [most(scores[str(i)], attentions(net)[0].groups // 2) for i in range(3)])
        if family in TIED or method is width:
            assert small.config.hidden_size == 16
            masked = without_channels(masked, most(scores[CHANNELS], 16), most(scores.get(OWN, scores[CHANNELS]), 16))
        close(small, masked, net)


@pytest.mark.parametrize("importance", ["similarity", "taylor", "magnitude", "random"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_the_blocks_with_the_lowest_scores_go(model_of, tiny_texts, family, importance):
    model = model_of(family)
    method = Layers(count=1, importance=importance, recovery="none", calibration_texts=16)
    scores = method.scores(model, tiny_texts.train.pick(range(16)), 0)["blocks"]
    small = method.cut(model.with_net(deepcopy(model.network)), {"blocks": scores}, 0.5, model).network
    kept = [number for number in range(3) if number != int(scores.argmin())]
    close(small, without_blocks(model.network, kept), model.network)


# importance


def test_taylor_is_the_gradient_of_the_loss_by_a_head(model_of, tiny_texts):
    """Two routes to one number: autograd through a gate, and the difference that a slightly weaker head makes."""
    model = model_of("bert")
    texts = tiny_texts.train.pick([3])
    got = group_scores(model, texts, "taylor", 0)
    number = torch.tensor([model.labels.index(texts.labels[0])])

    def loss(block: int, head: int, factor: float) -> float:
        copy = model.with_net(deepcopy(model.network).double())
        each = attentions(copy.network)[block]
        with torch.no_grad():
            each.output.weight[:, head * each.size : (head + 1) * each.size] *= factor
        ids = torch.tensor([model.tokenizer(texts.texts[0])["input_ids"]])
        return torch.nn.functional.cross_entropy(copy.network(input_ids=ids).logits, number).item()

    for block, head in ((0, 0), (1, 3), (2, 1)):
        slope = (loss(block, head, 1 + 1e-4) - loss(block, head, 1 - 1e-4)) / 2e-4
        assert got[str(block)][head].item() == pytest.approx(abs(slope), rel=1e-2, abs=1e-6)


def test_a_block_that_changes_nothing_is_worth_nothing(model_of, tiny_texts):
    model = model_of("gpt2")
    with torch.no_grad():
        for layer in (model.network.transformer.h[1].attn.c_proj, model.network.transformer.h[1].mlp.c_proj):
            layer.weight.zero_()
            layer.bias.zero_()
    for importance in ("similarity", "taylor"):
        scores = Layers(importance=importance).scores(model, tiny_texts.train.pick(range(8)), 0)["blocks"]
        assert scores.argmin() == 1
    assert changes(model, tiny_texts.train.pick(range(8)))[1] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("importance", ["taylor", "activation", "magnitude"])
def test_a_head_that_gives_nothing_goes_first(model_of, tiny_texts, importance):
    model = model_of("llama")
    with torch.no_grad():
        for layer in model.network.model.layers:
            each = layer.self_attn
            for weight in (each.v_proj.weight, each.k_proj.weight):
                weight[:8] = 0
            each.q_proj.weight[:16] = 0
            each.o_proj.weight[:, :16] = 0
    scores = group_scores(model, tiny_texts.train.pick(range(8)), importance, 0)
    assert all(score.argmin() == 0 for score in scores.values())


# what leaves


RELOAD = """
import json, sys
import numpy as np, torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
ids = torch.tensor(json.loads(sys.argv[1]))
for folder, kind in json.loads(sys.argv[2]):
    auto = {"causal": AutoModelForCausalLM, "labels": AutoModelForSequenceClassification}[kind]
    net, found = auto.from_pretrained(folder, output_loading_info=True)
    assert not any(found.values()), found
    with torch.no_grad():
        np.save(folder + "/answer.npy", net.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.numpy())
assert "mlflow_llmops" not in sys.modules
"""


@pytest.mark.slow
def test_a_fresh_process_with_plain_transformers_has_the_same_and_smaller_networks(model_of, tiny_texts, tmp_path):
    ids = [[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]]
    folders, expected = [], []
    for family in FAMILIES:
        model = model_of(family)
        model.save(tmp_path / family)
        for name in ("heads", "layers", "width", "neurons"):
            options = {"importance": "magnitude", "recovery": "none", "fraction": 0.5}
            small = table.build(f"prune.{name}", options).apply(model, tiny_texts, NOWHERE)
            folder = tmp_path / f"{family}-{name}"
            small.save(folder)
            sizes = [(each / "model.safetensors").stat().st_size for each in (folder, tmp_path / family)]
            assert sizes[0] < sizes[1]
            assert small.network.num_parameters() < model.network.num_parameters()
            folders.append((str(folder), "causal" if family in CAUSAL else "labels"))
            with torch.no_grad():
                expected.append(small.network(input_ids=torch.tensor(ids)).logits.numpy())
    command = [sys.executable, "-c", RELOAD, json.dumps(ids), json.dumps(folders)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    for (folder, _), logits in zip(folders, expected, strict=True):
        np.testing.assert_allclose(np.load(f"{folder}/answer.npy"), logits, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_heads_can_leave_without_channels_as_a_graph(tiny_model, tiny_texts, tmp_path, engine):
    method = Heads(fraction=0.5, fit="export", engine=engine, epochs=1, batch_size=16)
    assert method.gives == engine
    assert f"so it leaves as {engine}" in method.notes(tiny_model)[0]
    made = method.apply(tiny_model, tiny_texts, tmp_path)
    assert made.kind == engine and made.artifact.parameters < tiny_model.network.num_parameters()
    right = scorer_of(made).logits(tiny_texts.test.texts).argmax(1)
    assert np.mean([made.labels[i] == label for i, label in zip(right, tiny_texts.test.labels, strict=True)]) > 0.8


def test_a_network_that_no_class_holds_is_never_saved(tiny_model, tiny_texts, tmp_path):
    made = Heads(fraction=0.5, fit="export", recovery="none").pruned(tiny_model, tiny_texts)
    assert made.network.config.hidden_size == 32
    with pytest.raises(ModelError, match=r"fit its class no more, so it cannot be saved as one; export it"):
        made.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(ModelError, match=r"its config cannot say the new shape of bert\.encoder\.layer\.0"):
        check_stock(made.network)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tiny_model", "tiny_decoder"])
def test_export_and_int8_work_on_what_was_cut(request, kind, tiny_texts, tmp_path):
    model = request.getfixturevalue(kind)
    small = Heads(fraction=0.5, importance="magnitude", recovery="none").apply(model, tiny_texts, NOWHERE)
    small = table.build("prune.neurons", {"fraction": 0.5, "recovery": "none"}).apply(small, tiny_texts, NOWHERE)
    for name in ("export.onnx", "quantize.int8_static") if kind == "tiny_model" else ("export.openvino",):
        folder = tmp_path / name
        folder.mkdir()
        made = table.build(name, {}).apply(small, tiny_texts, folder)  # export compares its logits with torch's
        if kind == "tiny_model":
            ours, theirs = (scorer_of(each).logits(tiny_texts.test.texts).argmax(1) for each in (small, made))
            assert np.mean(ours == theirs) > 0.9


# what the run says, and what is refused


def test_the_run_says_before_the_work_what_goes_along(model_of):
    said = {family: Heads(fraction=0.25 if family in TIED else 0.5).notes(model_of(family))[0] for family in FAMILIES}
    assert said["bert"].startswith("1 of 4 heads go from each block, and 8 of 32 hidden channels with them")
    assert "ties the hidden size to the heads; fit=export keeps" in said["gpt2"]
    assert said["mistral"] == "2 of 4 heads go from each block; the class of mistral holds the rest as it is"
    assert "16 of 32 hidden channels go, and 2 of 4 heads with them" in Width(fraction=0.5).notes(model_of("bert"))[0]
    assert Width(fraction=0.25).notes(model_of("llama")) == ()


def test_a_llama_loses_the_channels_that_its_class_wants_gone(tiny_decoder, tiny_texts):
    """Its config refuses a hidden size that is no multiple of the number of heads."""
    torch.manual_seed(0)
    net = untrained("llama", len(tiny_decoder.tokenizer), num_key_value_heads=4, tie_word_embeddings=False)
    model = tiny_decoder.with_net(net)
    method = Heads(count=1, importance="magnitude", recovery="none")
    assert "and 2 of 32 hidden channels with them" in method.notes(model)[0]
    small = method.apply(model, tiny_texts, NOWHERE).network
    assert (small.config.num_attention_heads, small.config.hidden_size, small.config.head_dim) == (3, 30, 8)


def test_bad_numbers_are_told_in_one_line(model_of, tiny_texts):
    bert, llama = model_of("bert"), model_of("llama")
    for method, model, said in (
        (Heads(count=4), bert, r"^count=4: a block has 4 heads; cut 1 to 3$"),
        (Heads(count=9), bert, r"^count=9: a block has 4 heads"),
        (Heads(count=1), llama, r"^count=1: a block has 2 groups of 2 heads with common keys; cut 2 to 2, a multiple"),
        (Heads(fraction=0.05), bert, r"^fraction=0.05: nothing would be cut from 4 heads a block; give at least 0.25$"),
        (Heads(fraction=0.5, fit="export"), llama, r"^fit=export: the class of llama holds 1 groups"),
        (Layers(count=3), bert, r"^count=3: the model has 3 blocks; cut 1 to 2$"),
        (Layers(fraction=0.1), bert, r"^fraction=0.1: nothing would be cut from 3 blocks; give at least 0.33$"),
        (Width(fraction=0.01), bert, r"^fraction=0.01: nothing would be cut from 32 channels \(they go in 8s\)$"),
    ):
        with pytest.raises(ConfigError, match=said):
            method.check(model, tiny_texts)


@pytest.mark.parametrize("method", [Heads, Layers, Width])
def test_a_fraction_of_nothing_or_all_is_refused(method):
    for fraction in (0, 1):
        with pytest.raises(ConfigError, match=rf"^fraction={fraction}: "):
            method(fraction=fraction)


@pytest.mark.parametrize("name", ["heads", "layers", "width", "neurons"])
def test_an_unknown_family_names_the_known(tiny_decoder, tiny_texts, name):
    config = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    model = tiny_decoder.with_net(T5ForConditionalGeneration(config))
    with pytest.raises(ModelError, match=r"family t5 cannot be cut yet; those that can: bert, .*gpt2, llama"):
        table.build(f"prune.{name}", {}).check(model, tiny_texts)


def test_rounds_cut_heads_and_channels_step_by_step(model_of, tiny_texts):
    seen = []

    class Watched(Heads):
        def cut(self, model, scores, fraction, original):
            made = super().cut(model, scores, fraction, original)
            seen.append((made.network.config.num_attention_heads, made.network.config.hidden_size))
            return made

    Watched(fraction=0.75, rounds=3, importance="magnitude", recovery="none").apply(
        model_of("distilbert"), tiny_texts, NOWHERE
    )
    assert seen == [(3, 24), (2, 16), (1, 8)]
