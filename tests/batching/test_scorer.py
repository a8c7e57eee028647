"""Batching changes how fast texts are scored, never their scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax as scipy_softmax
from tokenizers import Tokenizer, models, pre_tokenizers

from mlflow_llmops.batching.scorer import TextScorer, pad, softmax
from mlflow_llmops.measure.scorer import scorer_of

WORDS = [f"w{i}" for i in range(50)]
MAX_LENGTH = 12
TEXTS = st.lists(st.lists(st.sampled_from([*WORDS, "unheard"]), max_size=20).map(" ".join), max_size=25)


class Bag:
    """A small real network in numpy: the mean of the masked-in embeddings, times a matrix. It counts rows."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.embeddings = random.normal(size=(len(WORDS) + 2, 8))
        self.head = random.normal(size=(8, 3))
        self.rows = 0

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        self.rows += len(inputs["input_ids"])
        mask = inputs["attention_mask"][:, :, None]
        return (self.embeddings[inputs["input_ids"]] * mask).sum(1) / mask.sum(1) @ self.head


def bag_scorer(token_budget: int) -> TextScorer:
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return TextScorer(tokenizer, Bag(), MAX_LENGTH, 0, token_budget)


@given(TEXTS.filter(len), st.integers(1, 200))
def test_scores_equal_those_of_one_text_at_a_time_in_the_given_order(texts, budget):
    together = bag_scorer(budget).logits(texts)
    alone = np.concatenate([bag_scorer(1).logits([text]) for text in texts])
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


@given(TEXTS, st.integers(1, 200))
def test_the_network_sees_each_distinct_text_once(texts, budget):
    scorer = bag_scorer(budget)
    scorer.logits(texts * 2)
    assert scorer.network.rows == len(set(texts))


@given(TEXTS.filter(len), st.integers(1, 200))
def test_logits_of_ids_scores_every_row(texts, budget):
    scorer = bag_scorer(budget)
    scored = scorer.logits_of_ids(scorer.encode(texts))
    assert scorer.network.rows == len(texts)
    np.testing.assert_allclose(scored, bag_scorer(budget).logits(texts), rtol=1e-5, atol=1e-6)


def test_no_texts_give_no_rows():
    assert bag_scorer(64).logits([]).shape[0] == 0


def test_long_texts_are_cut_whatever_was_set_on_the_tokenizer():
    scorer = bag_scorer(64)
    scorer.tokenizer.enable_padding(length=40)
    scorer.tokenizer.enable_truncation(3)
    lengths = [len(ids) for ids in scorer.encode(["w1", "w1 " * 8, "w1 " * 30])]
    assert lengths == [1, 8, MAX_LENGTH]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_pad_masks_in_exactly_the_tokens(lengths):
    rows = [np.arange(1, length + 1) for length in lengths]
    padded = pad(rows, pad_id=0)
    assert padded["input_ids"].shape == (len(rows), max(1, *lengths, 1))
    for ids, mask, row in zip(padded["input_ids"], padded["attention_mask"], rows, strict=True):
        assert ids[: len(row)].tolist() == row.tolist()
        assert not ids[len(row) :].any()
        assert mask.sum() == max(1, len(row)), "an empty text is one token: no mask may be all zeros"


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), min_size=1, max_size=5).map(np.array))
def test_softmax_is_scipys(logits):
    np.testing.assert_allclose(softmax(logits), scipy_softmax(logits, axis=-1), atol=1e-12)


@pytest.mark.parametrize("budget", [1, 64, 4096])
def test_a_trained_network_scores_alike_in_every_batch(tiny_model, tiny_texts, budget):
    texts = [*tiny_texts.dev.texts, "", "rain " * 500, tiny_texts.dev.texts[0]]
    scorer = scorer_of(tiny_model)
    batched = TextScorer(scorer.tokenizer, scorer.network, scorer.max_length, scorer.pad_id, budget).logits(texts)
    alone = np.concatenate([scorer.logits([text]) for text in texts])
    np.testing.assert_allclose(batched, alone, atol=1e-4)
    assert np.ptp(alone[:, 0]) > 0.1, "a network that answers always alike would prove nothing"
