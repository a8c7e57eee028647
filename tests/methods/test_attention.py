"""The student's tokens come to relate to each other as the teacher's, whatever the widths and heads of the two."""

from copy import deepcopy
from math import sqrt
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MobileBertConfig,
    Qwen2Config,
    RobertaConfig,
    XLMRobertaConfig,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from mlflow_llmops.errors import ConfigError, ModelError
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods._hooks import hooks_as_before
from mlflow_llmops.methods._losses import label_loss
from mlflow_llmops.methods._rows import collate, rows_of
from mlflow_llmops.methods.distill import attention
from mlflow_llmops.methods.distill._attention_states import (
    ATTENTION_FAMILIES,
    AttentionListener,
    attention_family,
    attention_widths,
)
from mlflow_llmops.methods.distill.attention import Attention, relation, relation_divergence, relation_loss

NOWHERE = Path("unused")
LENGTHS = (5, 2, 1)
SHAPE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
WIDE = {**SHAPE, "intermediate_size": 64}
GROUPED = {**WIDE, "num_key_value_heads": 2, "pad_token_id": 0}
CONFIGS = {
    "bert": BertConfig(**WIDE),
    "roberta": RobertaConfig(**WIDE),
    "xlm-roberta": XLMRobertaConfig(**WIDE),
    "electra": ElectraConfig(**WIDE, embedding_size=16),
    "mobilebert": MobileBertConfig(**WIDE, embedding_size=16, intra_bottleneck_size=16),
    "albert": AlbertConfig(**WIDE, embedding_size=16),
    "distilbert": DistilBertConfig(vocab_size=50, dim=32, n_layers=3, n_heads=4, hidden_dim=64),
    "gpt2": GPT2Config(vocab_size=50, n_embd=32, n_layer=3, n_head=4, pad_token_id=0),
    "llama": LlamaConfig(**GROUPED),
    "mistral": MistralConfig(**GROUPED),
    "qwen2": Qwen2Config(**GROUPED),
}


def network(family: str):
    torch.manual_seed(0)
    config = deepcopy(CONFIGS[family])
    config._attn_implementation = "eager"
    return AutoModelForSequenceClassification.from_config(config).eval()


def ids_and_mask() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(3, 50, (2, 6), generator=torch.Generator().manual_seed(1))
    return ids, torch.tensor([[1] * 6, [1] * 4 + [0] * 2])


def states(width: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 1.5, (3, 5, width))).requires_grad_()


def mask_of() -> torch.Tensor:
    return torch.tensor([[1] * length + [0] * (5 - length) for length in LENGTHS])


def written_out(theirs: torch.Tensor, ours: torch.Tensor, heads: int, causal: bool) -> float:
    """MiniLMv2's formula, text by text, head by head, token by token."""
    found = []
    for text, length in enumerate(LENGTHS):
        for head in range(heads):
            for token in range(length):
                seen = token + 1 if causal else length
                log_p, log_q = (
                    log_softmax(x[:seen] @ x[token] / sqrt(x.shape[1]))
                    for x in (np.split(s.detach().numpy()[text], heads, axis=1)[head] for s in (theirs, ours))
                )
                found.append((np.exp(log_p) * (log_p - log_q)).sum())
    return float(np.mean(found))


def divergence(theirs, ours, heads, causal, mask=None) -> torch.Tensor:
    mask = mask_of() if mask is None else mask
    return relation_divergence(relation(theirs, heads, mask, causal), relation(ours, heads, mask, causal), mask)


# the loss


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("width", "heads"), [(12, 1), (12, 4), (8, 2), (4, 4)])
def test_the_loss_is_the_written_formula(width, heads, causal):
    theirs, ours = states(12, 0), states(width, 1)
    value = divergence(theirs, ours, heads, causal).item()
    assert value > 0
    assert value == pytest.approx(written_out(theirs, ours, heads, causal), rel=1e-10)


@pytest.mark.parametrize("causal", [False, True])
def test_the_gradient_is_that_of_finite_differences(causal):
    theirs, ours = states(12, 0).detach(), states(4, 1)
    assert torch.autograd.gradcheck(lambda x: divergence(theirs, x, 2, causal), (ours,))
    divergence(theirs, ours, 2, causal).backward()
    assert ours.grad[mask_of().bool()].abs().sum() > 0
    assert ours.grad[~mask_of().bool()].abs().sum() == 0


def test_equal_relations_have_no_divergence():
    theirs = states(12, 0)
    rotation = torch.from_numpy(np.linalg.qr(np.random.default_rng(2).normal(size=(12, 12)))[0])
    assert divergence(theirs, theirs @ rotation, 1, False).item() == pytest.approx(0, abs=1e-12)
    assert divergence(theirs, theirs @ rotation, 4, False).item() > 1e-3


@pytest.mark.parametrize("causal", [False, True])
def test_padding_does_not_count(causal):
    theirs, ours, mask = states(12, 0).detach().clone(), states(8, 1).detach().clone(), mask_of()
    before = divergence(theirs, ours, 4, causal).item()
    theirs[mask == 0] = ours[mask == 0] = 77.0
    assert divergence(theirs, ours, 4, causal).item() == pytest.approx(before, rel=1e-12)
    theirs, ours = (nn.functional.pad(each, (0, 0, 0, 3)) for each in (theirs, ours))
    wider = nn.functional.pad(mask, (0, 3))
    assert divergence(theirs, ours, 4, causal, wider).item() == pytest.approx(before, rel=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_a_text_without_tokens_is_no_nan(causal):
    mask = mask_of()
    mask[2] = 0
    ours = states(8, 1)
    value = divergence(states(12, 0), ours, 4, causal, mask)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(ours.grad).all()


def test_the_whole_is_the_mean_of_two_halves_by_their_tokens():
    theirs, ours, mask = states(12, 0), states(8, 1), mask_of()
    parts = [(slice(0, 1), LENGTHS[0]), (slice(1, 3), LENGTHS[1] + LENGTHS[2])]
    weighted = sum(divergence(theirs[p], ours[p], 4, False, mask[p]).item() * n for p, n in parts) / sum(LENGTHS)
    assert divergence(theirs, ours, 4, False).item() == pytest.approx(weighted, rel=1e-12)


def test_the_terms_are_kept_apart():
    theirs, ours = ([states(width, seed + i) for i in range(3)] for width, seed in ((12, 0), (8, 5)))
    asked = []
    loss = relation_loss(
        label_loss,
        asked.append,
        SimpleNamespace(last=lambda: theirs),
        SimpleNamespace(last=lambda: ours),
        4,
        False,
        0.5,
    )
    batch = {"attention_mask": mask_of(), "labels": torch.tensor([0, 1, 1])}
    terms = loss(SequenceClassifierOutput(logits=torch.zeros(3, 2)), batch)
    assert list(terms) == ["label", "queries", "keys", "values"]
    assert asked == [batch]
    for name, x, y in zip(("queries", "keys", "values"), ours, theirs, strict=True):
        assert terms[name][0] == 0.5
        assert terms[name][1].item() == pytest.approx(written_out(y, x, 4, False), rel=1e-10)


# what is heard


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize(
    "family", ["bert", "roberta", "xlm-roberta", "electra", "mobilebert", "albert", "distilbert", "gpt2"]
)
def test_queries_and_keys_give_the_networks_own_attention(family, layer):
    net = network(family)
    ids, mask = ids_and_mask()
    with hooks_as_before(net), torch.no_grad():
        listener = AttentionListener(net, layer)
        net(input_ids=ids[:, :2])  # a run before is forgotten
        own = net(input_ids=ids, attention_mask=mask, output_attentions=True).attentions[layer - 1]
        queries, keys, values = listener.last()
    assert {each.shape[:2] for each in (queries, keys, values)} == {(2, 6)}
    assert (queries.shape[-1], keys.shape[-1], values.shape[-1]) == attention_widths(net)
    queries, keys = (each.unflatten(-1, (4, -1)).transpose(1, 2) for each in (queries, keys))
    seen = mask.bool()[:, None, None, :]
    if attention_family(net).causal:
        seen = seen & torch.ones(6, 6, dtype=torch.bool).tril()
    scores = (queries @ keys.mT / sqrt(queries.shape[-1])).masked_fill(~seen, float("-inf"))
    real = mask.bool()[:, None, :, None].expand_as(own)
    torch.testing.assert_close(scores.softmax(-1)[real], own[real], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_grouped_keys_and_values_are_heard_before_rotation(family, layer):
    net = network(family)
    ids, mask = ids_and_mask()
    with hooks_as_before(net), torch.no_grad():
        listener = AttentionListener(net, layer)
        before = net(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[layer - 1]
        heard = listener.last()
        block = net.base_model.layers[layer - 1]
        normed = block.input_layernorm(before)
        for name, each in zip(("q_proj", "k_proj", "v_proj"), heard, strict=True):
            torch.testing.assert_close(each, getattr(block.self_attn, name)(normed))
    assert tuple(each.shape[-1] for each in heard) == attention_widths(net) == (32, 16, 16)


def test_every_family_of_the_table_is_tried_here():
    assert set(CONFIGS) == set(ATTENTION_FAMILIES)
    for family in CONFIGS:
        causal = family in ("gpt2", "llama", "mistral", "qwen2")
        assert ATTENTION_FAMILIES[family].causal == causal


def test_an_unknown_family_names_the_known_ones():
    with pytest.raises(
        ModelError, match=r"model family funnel are not known; those that are: bert, .*qwen2; or use dist"
    ):
        attention_family(SimpleNamespace(config=SimpleNamespace(model_type="funnel")))


# the method


def test_heads_are_the_teachers_where_all_widths_allow():
    bert, llama, narrow = network("bert"), network("llama"), network("mobilebert")
    assert Attention()._heads(bert, llama) == 4
    bert.config.num_attention_heads = 12  # of 32, 32, 16, 16
    assert Attention()._heads(bert, llama) == 4
    assert Attention(relation_heads=16)._heads(bert, narrow) == 16
    with pytest.raises(
        ConfigError, match=r"relation_heads=5 does not divide all widths .*\(16, 32\); give a divisor of 16"
    ):
        Attention(relation_heads=5)._heads(bert, narrow)


def test_a_layer_that_the_teacher_does_not_have_is_refused(tiny_model, tiny_texts):
    with pytest.raises(ConfigError, match=r"^teacher_layer=3: the teacher has 2 layers"):
        Attention(student="layers:1", teacher_layer=3).apply(tiny_model, tiny_texts, NOWHERE)


def hooks_of(net) -> list:
    return [
        h for module in net.modules() for h in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]


def test_the_teacher_stays_as_it_was_and_no_hook_stays(tiny_model, tiny_texts):
    teacher = tiny_model.with_net(deepcopy(tiny_model.network))
    before = deepcopy(teacher.network.state_dict())
    trained = Attention(student="layers:1", epochs=0.5).apply(teacher, tiny_texts, NOWHERE)
    assert hooks_of(teacher.network) == hooks_of(trained.network) == []
    assert all(torch.equal(before[name], weight) for name, weight in teacher.network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in teacher.network.parameters())


def test_no_hook_stays_where_training_fails(tiny_model, tiny_texts, monkeypatch):
    nets = []

    def fail(model, rows, schedule, loss, dev):
        nets.append(model.network)
        batch = collate(rows[:4], model)
        assert list(loss(model.network(batch["input_ids"], batch["attention_mask"]), batch))[2:] == [
            *attention.RELATIONS
        ]
        assert hooks_of(model.network)
        raise KeyboardInterrupt

    monkeypatch.setattr(attention, "train", fail)
    teacher = tiny_model.with_net(deepcopy(tiny_model.network))
    someones = teacher.network.bert.register_forward_hook(lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        Attention(student="shape:layers=1").apply(teacher, tiny_texts, NOWHERE)
    assert len(hooks_of(teacher.network)) == 1, "that of someone else stays"
    someones.remove()
    assert hooks_of(nets[0]) == []


def test_a_seed_fixes_the_result(tiny_model, tiny_texts):
    method = Attention(student="shape:layers=1,width=16,heads=2", epochs=1, batch_size=64)
    first, again, other = (
        scorer_of(method.apply(tiny_model, tiny_texts, NOWHERE, seed)).logits(tiny_texts.dev.texts)
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def held_out_divergence(model, teacher, texts, layer: int) -> float:
    """The sum over queries, keys and values, on texts that no training saw."""
    batch = collate(rows_of(teacher, texts), teacher)
    heard = []
    with torch.no_grad():
        for net, of in ((teacher.network, layer), (model.network, model.network.config.num_hidden_layers)):
            with hooks_as_before(net):
                listener = AttentionListener(net, of)
                net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
                heard.append(listener.last())
    causal = attention_family(teacher.network).causal
    mask = batch["attention_mask"]
    return sum(divergence(y, x, 2, causal, mask).item() for y, x in zip(*heard, strict=True))


@pytest.mark.parametrize(
    ("student", "layer"),
    [("layers:1", None), ("shape:layers=1,width=16,heads=1", None), ("distilbert:width=64,layers=1", 1)],
)
def test_a_large_gamma_brings_the_relations_nearer_to_the_teachers(tiny_model, tiny_texts, student, layer):
    far, near = (
        Attention(student=student, teacher_layer=layer, gamma=gamma, epochs=2, batch_size=16, token_dropout=0).apply(
            tiny_model, tiny_texts, NOWHERE, 1
        )
        for gamma in (0.0, 20.0)
    )
    distances = [held_out_divergence(each, tiny_model, tiny_texts.test, layer or 2) for each in (near, far)]
    assert distances[0] < 0.8 * distances[1]


def test_a_causal_student_comes_nearer_too(tiny_decoder, tiny_texts):
    far, near = (
        Attention(student="shape:layers=1,width=16,heads=2", gamma=gamma, epochs=2, batch_size=16).apply(
            tiny_decoder, tiny_texts, NOWHERE, 1
        )
        for gamma in (0.0, 20.0)
    )
    distances = [held_out_divergence(each, tiny_decoder, tiny_texts.test, 2) for each in (near, far)]
    assert distances[0] < 0.8 * distances[1]


@pytest.mark.parametrize("student", ["albert:width=64,layers=2", "mobilebert:width=64,layers=2", "tinybert-4:width=32"])
def test_other_architectures_learn_relations(tiny_model, tiny_texts, student):
    trained = Attention(student=student, epochs=0.1).apply(tiny_model, tiny_texts, NOWHERE)
    assert np.isfinite(scorer_of(trained).logits(tiny_texts.dev.texts)).all()
