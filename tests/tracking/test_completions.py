"""A saved causal model that writes or scores otherwise than the one in memory is refused."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from mlflow_llmops.errors import ArtifactMismatch
from mlflow_llmops.flavors.by_kind import save_text_model
from mlflow_llmops.measure.generation import complete, prompts_of
from mlflow_llmops.measure.likelihood import likelihoods
from mlflow_llmops.tracking.completions import check_completions, check_likelihoods
from mlflow_llmops.tracking.reload import Answers, answers_of_fresh_process


@pytest.fixture(scope="module")
def prompts(tiny_texts):
    return prompts_of(tiny_texts.test.texts)


@pytest.fixture(scope="module")
def expected(tiny_decoder, prompts):
    return complete(tiny_decoder, prompts)


@pytest.fixture(scope="module")
def other(tiny_decoder):
    """The planted one: a little noise on one layer."""
    net = deepcopy(tiny_decoder.network)
    torch.manual_seed(5)
    with torch.no_grad():
        weight = net.model.layers[0].mlp.down_proj.weight
        weight += 0.5 * weight.std() * torch.randn_like(weight)
    return tiny_decoder.with_net(net)


def test_a_fresh_process_writes_the_same_and_a_planted_model_is_refused(
    tiny_decoder, other, prompts, expected, tmp_path
):
    save_text_model(tiny_decoder, tmp_path / "same")
    answers = answers_of_fresh_process(tmp_path / "same", prompts)
    assert check_completions(tiny_decoder, expected, answers) == 0
    assert answers.peak_mib > 100 and answers.labels == ()

    save_text_model(other, tmp_path / "other")
    with pytest.raises(ArtifactMismatch, match=r"completes \d+ of 32 prompts otherwise"):
        check_completions(tiny_decoder, expected, answers_of_fresh_process(tmp_path / "other", prompts))


def test_log_likelihoods_of_a_planted_model_are_refused(tiny_decoder, other, tiny_texts):
    mine = likelihoods(tiny_decoder, tiny_texts.test.texts)
    assert check_likelihoods(mine, likelihoods(tiny_decoder, tiny_texts.test.texts)) == 0
    with pytest.raises(ArtifactMismatch, match="log-likelihoods of tokens differ by up to"):
        check_likelihoods(mine, likelihoods(other, tiny_texts.test.texts))
    with pytest.raises(ArtifactMismatch, match="differ by up to nan"):
        check_likelihoods(mine, replace(mine, log=[log * np.nan for log in mine.log]))
    with pytest.raises(ArtifactMismatch, match="other tokens"):
        check_likelihoods(mine, replace(mine, tokenizer="another"))


def test_only_a_tie_before_the_difference_excuses_it(tiny_decoder, expected):
    at = max(range(len(expected)), key=lambda i: len(expected[i].ids))
    whole = expected[at]
    assert len(whole.ids) >= 3
    head = tiny_decoder.tokenizer.decode(whole.ids[:1], skip_special_tokens=True).strip()

    def check(margins, text):
        return check_completions(tiny_decoder, [replace(whole, margins=margins)], Answers(completions=(text,)))

    sure = (1.0,) * len(whole.ids)
    assert check(sure, whole.text) == 0
    assert check((1.0, 1e-4, *sure[2:]), head + " zzz") == 1  # the second token could have been another
    assert check((1e-4, *sure[1:]), "zzz") == 1
    for margins, text in (
        (sure, head + " zzz"),
        ((*sure[:-1], 1e-4), "zzz"),  # the tie came after the difference
        (sure, ""),
        (sure, whole.text + " zzz"),
    ):
        with pytest.raises(ArtifactMismatch):
            check(margins, text)
