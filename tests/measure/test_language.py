"""Perplexity against its written-out formula and transformers' own loss; changes paired by text."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mlflow_llmops import names
from mlflow_llmops.errors import DataError
from mlflow_llmops.measure.language import language, language_change
from mlflow_llmops.measure.likelihood import Likelihoods, likelihoods
from mlflow_llmops.models.scratch_decoder import small_decoder


@pytest.fixture(scope="module")
def found(tiny_decoder, tiny_texts) -> Likelihoods:
    return likelihoods(tiny_decoder, tiny_texts.test.texts)


def moved(found: Likelihoods, by) -> Likelihoods:
    return replace(found, log=[log + by(i) for i, log in enumerate(found.log)])


def pick(found: Likelihoods, count: int) -> Likelihoods:
    return replace(found, **{name: getattr(found, name)[:count] for name in ("log", "best", "ends", "starts")})


def test_one_text_has_transformers_own_loss(tiny_decoder, tiny_texts, found):
    for i in range(5):
        ids = torch.tensor([tiny_decoder.tokenizer(tiny_texts.test.texts[i])["input_ids"]])
        with torch.no_grad():
            loss = tiny_decoder.network(ids, labels=ids).loss.item()
        assert -found.log[i].mean() == pytest.approx(loss, abs=1e-5)


def test_perplexity_is_the_written_out_formula(tiny_decoder, tiny_texts, found):
    total, tokens = 0.0, 0
    for text in tiny_texts.test.texts:
        ids = tiny_decoder.tokenizer(text)["input_ids"]
        with torch.no_grad():
            probabilities = tiny_decoder.network(torch.tensor([ids])).logits[0].double().softmax(-1)
        total -= sum(math.log(probabilities[at, ids[at + 1]]) for at in range(len(ids) - 1))
        tokens += len(ids) - 1
    measured = language(found)
    perplexity = measured[names.PERPLEXITY]
    assert perplexity.value == pytest.approx(math.exp(total / tokens), rel=1e-5)
    assert perplexity.low < perplexity.value < perplexity.high < 2 * perplexity.low
    assert measured[names.QUALITY_TEXTS] == len(tiny_texts.test)


def test_training_made_it_better_than_chance(tiny_decoder, tiny_texts, found):
    torch.manual_seed(1)
    untrained = small_decoder(tiny_texts.train, vocabulary=400, hidden_size=32, num_hidden_layers=1)
    chance = likelihoods(untrained, tiny_texts.test.texts)
    assert language(found)[names.PERPLEXITY].high < language(chance)[names.PERPLEXITY].low / 3
    assert language_change(chance, found, tiny_texts.test.texts)[names.QUALITY_CHANGE].low > 1


def test_a_change_counted_by_hand():
    hits = [np.array([True, False]), np.array([True])]
    one = Likelihoods("t", [np.array([-1.0, -3.0]), np.array([-2.0])], [np.array([1, 2]), np.array([3])], [], [], hits)
    other = replace(one, log=[np.array([-2.0, -3.0]), np.array([-2.5])], best=[np.array([1, 7]), np.array([3])])
    measured = language_change(one, other, ("", ""))
    assert measured[names.QUALITY_CHANGE].value == pytest.approx(-1.5 / 3)
    before, after = (language(each)[names.PERPLEXITY].value for each in (one, other))
    assert measured[names.RETAINED].value == pytest.approx(before / after)
    assert measured[names.AGREEMENT].value == pytest.approx(2 / 3)


def test_a_paired_change_is_narrower_than_the_perplexities(found, tiny_texts):
    random = np.random.default_rng(0)
    other = moved(found, lambda i: random.normal(-0.05, 0.02))
    change = language_change(found, other, tiny_texts.test.texts)[names.QUALITY_CHANGE]
    alone = language(found)[names.PERPLEXITY]
    assert change.high < 0 and change.value == pytest.approx(-0.05, abs=0.01)
    assert change.high - change.low < math.log(alone.high / alone.low)


def test_equal_answers_prove_more_the_more_texts_there_are(found, tiny_texts):
    widths = []
    for count in (5, 30, 120):
        some = pick(found, count)
        measured = language_change(some, some, tiny_texts.test.texts[:count])
        change, agreement = measured[names.QUALITY_CHANGE], measured[names.AGREEMENT]
        assert change.low < change.value == 0 < change.high
        assert agreement.low < agreement.value == 1
        widths.append(-change.low)
    assert widths[0] > 0.2 > 0.03 > widths[2]
    assert widths[0] > widths[1] > widths[2]


def test_another_tokenizer_is_compared_by_character(tiny_decoder, tiny_texts, found):
    """A tokenizer that knows bytes only, with a network that holds every byte equally likely."""
    torch.manual_seed(0)
    bytes_only = small_decoder(tiny_texts.train, vocabulary=260, hidden_size=16, num_attention_heads=2)
    with torch.no_grad():
        bytes_only.network.model.norm.weight.zero_()
    other = likelihoods(replace(bytes_only, max_length=512), tiny_texts.test.texts)
    assert other.counts.sum() == sum(map(len, tiny_texts.test.texts))
    measured = language_change(found, other, tiny_texts.test.texts)
    characters = sum(map(len, tiny_texts.test.texts))
    apart = sum(log.sum() for log in other.log) - sum(log.sum() for log in found.log)
    token = characters / found.counts.sum()
    assert measured[names.QUALITY_CHANGE].value == pytest.approx(apart / characters * token)
    assert names.AGREEMENT not in measured
    back = language_change(other, found, tiny_texts.test.texts)[names.QUALITY_CHANGE]
    assert back.value == pytest.approx(-apart / characters)  # a token of the baseline is a byte


def test_only_characters_that_both_predict_are_compared(tiny_decoder, tiny_texts):
    texts = (" ".join(tiny_texts.test.texts[:12]), "naïve café, 東京 🚗")
    short = replace(tiny_decoder, max_length=20)
    one, two = likelihoods(tiny_decoder, texts), likelihoods(short, texts)
    assert two.counts[0] == 19 < one.counts[0]
    measured = language_change(one, replace(two, tokenizer="another"), texts)
    assert measured[names.QUALITY_CHANGE].value == pytest.approx(0, abs=1e-6)


def test_a_text_of_one_token_is_left_out_and_none_at_all_is_an_error(tiny_decoder):
    found = likelihoods(tiny_decoder, ("", "rain and wind", "boat"))
    assert language(found)[names.QUALITY_TEXTS] == 2
    with pytest.raises(DataError, match="no text of the test split has two tokens"):
        language(likelihoods(tiny_decoder, ("",)))
