"""The loop that writes: against transformers' own `generate`, token by token, whatever runs the network."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mlflow_llmops.batching.decoding import Decoding
from mlflow_llmops.batching.generator import Clock, before
from mlflow_llmops.measure.generation import generator_of, prompts_of


@pytest.fixture(scope="module")
def prompts(tiny_texts) -> list[str]:
    return [*prompts_of(tiny_texts.test.texts, 9), "", "42", "the boat and the sail near the old island " * 30]


@pytest.fixture(params=["torch", "openvino", "onnx"])
def writer(request, tiny_decoder, exported_decoder):
    return generator_of(tiny_decoder if request.param == "torch" else exported_decoder(request.param))


def generated(model, prompt: str, new: int) -> list[int]:
    """By transformers, alone and without padding."""
    ids = model.tokenizer(prompt)["input_ids"][-(model.max_length - new) :]
    given = torch.tensor([ids])
    out = model.network.generate(
        given,
        attention_mask=torch.ones_like(given),
        max_new_tokens=new,
        do_sample=False,
        pad_token_id=model.pad_id,
    )
    return out[0, len(ids) :].tolist()


def test_greedy_tokens_are_those_of_transformers(tiny_decoder, writer, prompts):
    expected = [generated(tiny_decoder, prompt, 24) for prompt in prompts]
    assert len({len(ids) for ids in expected}) > 2, "they should end at different tokens"
    found = writer.complete(prompts, Decoding(24))
    assert [completion.ids for completion in found] == expected
    for completion in found:
        assert completion.text == tiny_decoder.tokenizer.decode(completion.ids, skip_special_tokens=True).strip()


def test_a_small_budget_and_repeated_prompts_change_nothing(writer, prompts):
    together = writer.complete(prompts)
    assert replace(writer, token_budget=1).complete(prompts) == together
    assert writer.complete([*prompts[:2], prompts[0]]) == [*together[:2], together[0]]
    assert writer.complete([]) == []


def test_a_sampled_text_is_the_same_alone_together_and_again(writer, prompts):
    how = Decoding(12, temperature=1.0, top_p=0.95)
    together = writer.complete(prompts, how)
    assert [writer.complete([prompt], how)[0].ids for prompt in prompts] == [each.ids for each in together]
    assert together != writer.complete(prompts, Decoding(12))
    assert together != writer.complete(prompts, replace(how, seed=1))


def test_a_stop_string_ends_a_text_and_is_not_in_it(writer, prompts):
    whole = writer.complete(prompts)
    at = max(range(len(whole)), key=lambda i: len(whole[i].text.split()))
    word = whole[at].text.split()[2]
    cut = writer.complete(prompts, Decoding(stop=(word, "never written")))
    assert cut[at].text == before(whole[at].text, [word]).strip()
    assert len(cut[at].ids) < len(whole[at].ids)
    assert not any(word in each.text for each in cut)
    assert before("one two three", ["three", "two"]) == "one "


def test_whole_writes_every_token_and_the_clock_parts_reading_from_writing(writer, prompts):
    clock = Clock()
    found = writer.complete(prompts, Decoding(20), whole=True, clock=clock)
    assert {len(completion.ids) for completion in found} == {20}
    assert len(clock.first) == len(clock.rest) >= 1
    assert min(clock.first + clock.rest) > 0


def test_more_tokens_than_there_is_room_for_end_where_the_model_ends(writer):
    found = writer.complete(["the boat", "a"], Decoding(10_000), whole=True)
    assert all(len(completion.ids) == writer.max_length - 1 for completion in found)


def test_margins_are_by_how_much_the_best_was_ahead(tiny_decoder, writer):
    [found] = writer.complete(["the boat"], Decoding(3), margins=True)
    ids = tiny_decoder.tokenizer("the boat")["input_ids"]
    with torch.no_grad():
        logits = tiny_decoder.network(torch.tensor([ids + found.ids[:-1]])).logits[0, len(ids) - 1 :]
    best = logits.topk(2).values
    np.testing.assert_allclose(found.margins, best[:, 0] - best[:, 1], atol=1e-4)
