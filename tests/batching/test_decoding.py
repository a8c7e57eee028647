"""Sampling draws what transformers' own warpers leave, and no row's draw depends on another's."""

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from mlflow_llmops.batching.decoding import Decoding
from mlflow_llmops.errors import ConfigError

LOGITS = np.array([2.0, -1.0, 0.5, 1.9, -3.0, 0.0], dtype=np.float32)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 0.9), (2.0, 0.6), (1.0, 0.01), (1.0, 0.999)])
def test_tokens_come_as_often_as_transformers_would_draw_them(temperature, top_p):
    scores = TemperatureLogitsWarper(temperature)(None, torch.from_numpy(LOGITS)[None])
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    expected = scores.softmax(-1)[0].numpy()
    how, random = Decoding(temperature=temperature, top_p=top_p), np.random.default_rng(0)
    count = 20_000
    drawn = np.bincount([how.choose(LOGITS, random) for _ in range(count)], minlength=len(LOGITS))
    assert not drawn[expected == 0].any()
    assert np.abs(drawn / count - expected).max() < 5 * np.sqrt(0.25 / count)


def test_temperature_zero_is_greedy():
    assert Decoding().choose(LOGITS, np.random.default_rng(0)) == LOGITS.argmax()


def test_a_prompt_has_its_own_randomness_that_the_seed_changes():
    first, again = (Decoding(temperature=1).random_of("a").random() for _ in range(2))
    assert first == again
    assert first != Decoding(temperature=1).random_of("b").random()
    assert first != Decoding(temperature=1, seed=1).random_of("a").random()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("stop", ("a", "")),
        ("seed", -1),
    ],
)
def test_a_value_that_cannot_work_names_its_option(name, value):
    with pytest.raises(ConfigError, match=f"^{name}="):
        Decoding(**{name: value})
