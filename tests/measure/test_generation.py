"""Greedy completions are the same alone and together, and a model is as fast as itself."""

import numpy as np
import pytest
import torch

from mlflow_llmops import names
from mlflow_llmops.measure.generation import (
    TIMED_PROMPTS,
    complete,
    measure_generation,
    prompts_of,
)
from mlflow_llmops.measure.speed import speedup
from mlflow_llmops.models.scratch_decoder import small_decoder


@pytest.fixture(scope="module")
def prompts(tiny_texts) -> tuple[str, ...]:
    return prompts_of(tiny_texts.test.texts)


def test_prompts_are_distinct_first_words(tiny_texts, prompts):
    assert len(prompts) == len(set(prompts)) == 32
    assert all(any(text.startswith(prompt + " ") for text in tiny_texts.test.texts) for prompt in prompts)
    assert prompts_of(["word", "word", "  ", "二" * 100]) == ("word", "二" * 32)


def test_a_completion_is_the_argmax_of_every_step(tiny_decoder, prompts):
    for prompt, completion in zip(prompts[:6], complete(tiny_decoder, prompts[:6]), strict=True):
        ids = tiny_decoder.tokenizer(prompt)["input_ids"]
        for token, margin in zip(completion.ids, completion.margins, strict=True):
            with torch.no_grad():
                best = tiny_decoder.network(torch.tensor([ids])).logits[0, -1].topk(2)
            assert token == best.indices[0]
            assert margin == pytest.approx((best.values[0] - best.values[1]).item(), abs=1e-4)
            ids = [*ids, token]
        assert len(completion.ids) == 32 or completion.ids[-1] == tiny_decoder.tokenizer.eos_token_id


def test_together_as_alone(tiny_decoder, prompts):
    mixed = [*prompts, "a", "the new boat of the old captain and the big wave near the small island " * 3]
    together = complete(tiny_decoder, mixed)
    alone = [complete(tiny_decoder, [prompt])[0] for prompt in mixed]
    assert [each.text for each in together] == [each.text for each in alone]
    np.testing.assert_allclose(together[-1].margins, alone[-1].margins, atol=1e-4)


def test_a_model_that_learned_ends_stops_and_one_that_did_not_goes_on(tiny_decoder, prompts):
    lengths = [len(each.ids) for each in complete(tiny_decoder, prompts)]
    assert min(lengths) < 20
    assert [len(each.ids) for each in complete(tiny_decoder, prompts[:2], new_tokens=1)] == [1, 1]


def test_a_model_against_itself_covers_one(tiny_decoder, prompts):
    ratios = []
    for _ in range(5):
        times = measure_generation({"a": tiny_decoder, "b": tiny_decoder}, prompts, seconds=0.0)
        ratios.append(speedup(times["a"], times["b"]))
    # each misses one time in twenty, so three misses in five are one in a thousand
    assert sum(ratio.low <= 1 <= ratio.high for ratio in ratios) >= 3
    assert np.median([ratio.value for ratio in ratios]) == pytest.approx(1, abs=0.2)


def test_more_layers_are_slower_and_every_model_writes_as_much(tiny_texts, tiny_decoder, prompts):
    torch.manual_seed(0)
    deep = small_decoder(tiny_texts.train, vocabulary=400, num_hidden_layers=10, hidden_size=32)
    times = measure_generation({"deep": deep, "tiny": tiny_decoder}, prompts, seconds=0.0)
    assert speedup(times["deep"], times["tiny"]).low > 1.5
    # the tiny one ends its texts early where it may
    assert times["deep"].tokens == times["tiny"].tokens == 32 * TIMED_PROMPTS
    measured = times["tiny"].measurements()
    rate, latency = measured[names.GENERATED_TOKENS_PER_S], measured[names.GENERATION_P50]
    assert rate.value == pytest.approx(32 * TIMED_PROMPTS / np.median(times["tiny"].batch), rel=0.01)
    assert latency.value == pytest.approx(1000 * np.median(times["tiny"].single))
