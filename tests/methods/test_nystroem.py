"""Attention through landmarks is softmax attention where there are as many as tokens, and nears it elsewhere."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    MPNetConfig,
    RobertaConfig,
)

from mlflow_llmops.batching.scorer import pad
from mlflow_llmops.errors import ConfigError, ModelError
from mlflow_llmops.methods.factorize._nystroem import _through, attend, nystroem, pseudo_inverse, segment_means
from mlflow_llmops.methods.factorize.attention import Attention, stretched

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
CONFIGS = {
    "bert": BertConfig(**SHAPE, intermediate_size=48),
    "distilbert": DistilBertConfig(vocab_size=100, dim=32, n_layers=2, n_heads=4, hidden_dim=48),
    "roberta": RobertaConfig(**SHAPE, intermediate_size=48),
    "electra": ElectraConfig(**SHAPE, intermediate_size=48, embedding_size=16),
    "albert": AlbertConfig(**SHAPE, intermediate_size=48, embedding_size=16),
}


def softmax_attention(query, key, value, seen):
    scores = (query @ key.transpose(-1, -2)).masked_fill(~seen[:, None, None, :], float("-inf"))
    return scores.softmax(-1) @ value


def some(texts=2, tokens=24, padded=0, seed=0, scale=0.3):
    generator = torch.Generator().manual_seed(seed)
    states = [scale * torch.randn(texts, 3, tokens, 8, generator=generator) for _ in range(3)]
    seen = torch.ones(texts, tokens, dtype=torch.bool)
    seen[-1, tokens - padded :] = False
    return *states, seen


@pytest.mark.parametrize("padded", [0, 7])
def test_as_many_landmarks_as_tokens_are_softmax_attention(padded):
    given = some(padded=padded)
    torch.testing.assert_close(attend(*given, landmarks=24, iterations=6), softmax_attention(*given))


@pytest.mark.parametrize("padded", [0, 7])
def test_the_formula_itself_gives_it_too_with_a_pseudo_inverse_that_has_come_to_its_end(padded):
    """In fp64: softmax(QK^T) is near to singular, and its inverse multiplies what rounding leaves."""
    *states, seen = some(padded=padded, scale=2.0)
    given = (*(state.double() for state in states), seen)
    found = _through(*given, landmarks=24, iterations=60)
    text = softmax_attention(*given)
    torch.testing.assert_close(found[seen[:, None, :].expand(-1, 3, -1)], text[seen[:, None, :].expand(-1, 3, -1)])


def test_more_landmarks_come_nearer():
    query, key, value, seen = some(tokens=128, scale=0.5)
    smooth = torch.nn.functional.avg_pool1d  # neighbours are alike, as in texts, or means would say little
    query, key = (smooth(x.flatten(0, 1).transpose(1, 2), 9, 1, 4).transpose(1, 2).view_as(x) for x in (query, key))
    exact = softmax_attention(query, key, value, seen)
    errors = [float((attend(query, key, value, seen, m, 8) - exact).norm()) for m in (4, 16, 64)]
    assert errors[0] > errors[1] > errors[2]


def test_padding_and_batch_mates_change_nothing():
    query, key, value, seen = some(texts=3, tokens=40, padded=15)
    together = _through(query, key, value, seen, landmarks=8, iterations=6)[2, :, :25]
    alone = _through(query[2:, :, :25], key[2:, :, :25], value[2:, :, :25], seen[2:, :25], landmarks=8, iterations=6)
    torch.testing.assert_close(together, alone[0])


def test_landmarks_are_the_means_of_stretches():
    seen = torch.tensor([[True] * 6 + [False] * 2, [True] * 2 + [False] * 6])
    means = segment_means(seen, 3)
    expected = torch.zeros(2, 3, 8)
    expected[0, 0, 0:2] = expected[0, 1, 2:4] = expected[0, 2, 4:6] = 0.5
    expected[1, 0, 0] = expected[1, 1, 1] = 1
    torch.testing.assert_close(means, expected)
    assert (segment_means(torch.ones(1, 50, dtype=torch.bool), 7).sum(-1) - 1).abs().max() < 1e-6


def test_the_pseudo_inverse_is_moores_and_penroses():
    matrix = torch.randn(5, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(-1)
    matrix[0, -3:], matrix[0, :, -3:] = 0, 0
    torch.testing.assert_close(pseudo_inverse(matrix, 40), torch.linalg.pinv(matrix), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_family_uses_it(family):
    torch.manual_seed(0)
    net = AutoModelForSequenceClassification.from_config(CONFIGS[family]).eval()
    ids = torch.randint(5, 90, (2, 12))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    run = partial(net, input_ids=ids, attention_mask=mask)
    with torch.no_grad():
        before = run().logits
        net.set_attn_implementation(nystroem(12, 6))
        torch.testing.assert_close(run().logits, before)
        net.set_attn_implementation(nystroem(4, 6))
        assert not torch.equal(run().logits, before)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_stretched_network_answers_alike_where_it_did_and_takes_more(family):
    torch.manual_seed(0)
    config = CONFIGS[family].__class__.from_dict({**CONFIGS[family].to_dict(), "max_position_embeddings": 40})
    net = AutoModelForSequenceClassification.from_config(config).eval()
    long = stretched(net, 96)
    ids = torch.randint(5, 90, (2, 96))
    with torch.no_grad():
        torch.testing.assert_close(long(input_ids=ids[:, :30]).logits, net(input_ids=ids[:, :30]).logits)
        assert torch.isfinite(long(input_ids=ids).logits).all()
    assert net.config.max_position_embeddings == 40


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_the_graph_takes_both_ways(engine, tiny_model, tiny_texts, tmp_path):
    """`apply` compares it with torch below and above the landmarks; its tokenizer is the model's."""
    made = Attention(landmarks=16, engine=engine, recovery="none").apply(tiny_model, tiny_texts, tmp_path)
    torch_net = Attention(landmarks=16).factorized(tiny_model, tiny_texts, 0)
    for tokens in (16, 17, 60):
        batch = pad([np.arange(5, 5 + tokens), np.arange(5, 5 + tokens // 2)], tiny_model.pad_id)
        np.testing.assert_allclose(made.run(batch), torch_net.run(batch), atol=1e-4)
        same = np.abs(made.run(batch) - tiny_model.run(batch)).max() < 1e-4
        assert same == (tokens == 16)


def test_what_cannot_be_replaced_is_refused_and_what_changes_nothing_is_said(tiny_model, tiny_texts):
    for bad in (0, 1):
        with pytest.raises(ConfigError, match=f"^landmarks={bad}: "):
            Attention(landmarks=bad)
    config = MPNetConfig(**SHAPE, intermediate_size=48, num_labels=3)
    other = tiny_model.with_net(AutoModelForSequenceClassification.from_config(config))
    with pytest.raises(ModelError, match="family mpnet cannot be replaced by landmarks; those that can: bert, distil"):
        Attention().check(other, tiny_texts)
    assert "no text is long enough" in Attention(landmarks=64).notes(tiny_model)[0]
    assert Attention(landmarks=16).notes(tiny_model) == ()
    with pytest.raises(ModelError, match="not for task=text-generation"):
        Attention().check(replace(tiny_model, task="text-generation"), tiny_texts)
