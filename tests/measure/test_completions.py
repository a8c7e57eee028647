"""Completions against the real continuation, and the longest common subsequence against all subsequences."""

from itertools import combinations

import numpy as np
import pytest

from mlflow_llmops import names
from mlflow_llmops.measure.completions import against_texts, alike, continuations, rouge_l


def longest_common(a: str, b: str) -> int:
    """By trying every subsequence of `a`."""
    ways = (picked for size in range(len(a), -1, -1) for picked in combinations(a, size))
    return next(len(picked) for picked in ways if _within(picked, b))


def _within(picked, b) -> bool:
    rest = iter(b)
    return all(letter in rest for letter in picked)


def test_rouge_l_is_that_of_all_subsequences():
    random = np.random.default_rng(0)
    for _ in range(60):
        a, b = ("".join(random.choice(list("abc"), random.integers(1, 8))) for _ in range(2))
        common = longest_common(a, b)
        precision, recall = common / len(b), common / len(a)
        expected = 2 * precision * recall / (precision + recall) if common else 0.0
        assert rouge_l(a, b) == pytest.approx(expected)
    assert rouge_l("", "abc") == rouge_l("abc", "") == 0


def test_a_completion_is_held_against_as_many_words_as_it_has():
    real = continuations(("the sea is wide and blue", "  a boat sails on"), ("a boat", "the sea"))
    assert real == ("sails on", "is wide and blue")
    measured = against_texts(["sails away", "Is wide!"], real)
    assert measured[names.EXACT_MATCH].value == 0.5
    assert measured[names.ROUGE_L].value == (0.5 + 1) / 2
    assert alike(["a ", "b"], ["a", "c"])[names.COMPLETIONS_ALIKE].value == 0.5
    with pytest.raises(ValueError, match="no text begins with 'a cow'"):
        continuations(("the sea",), ("a cow",))
