"""Completions against the real continuation, and against a baseline's."""

import pytest

from mlflow_llmops import names
from mlflow_llmops.measure.completions import against_texts, alike, continuations


def test_a_completion_is_held_against_as_many_words_as_it_has():
    real = continuations(("the sea is wide and blue", "  a boat sails on"), ("a boat", "the sea"))
    assert real == ("sails on", "is wide and blue")
    measured = against_texts(["sails away", "Is wide!"], real)
    assert measured[names.EXACT_MATCH].value == 0.5
    assert measured[names.ROUGE_L].value == (0.5 + 1) / 2
    assert alike(["a ", "b"], ["a", "c"])[names.COMPLETIONS_ALIKE].value == 0.5
    with pytest.raises(ValueError, match="no text begins with 'a cow'"):
        continuations(("the sea",), ("a cow",))
