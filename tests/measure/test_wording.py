"""ROUGE-L against its definition, and answers that are not there."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llmops import names
from mlflow_llmops.measure.wording import rouge_l, wording

few = st.lists(st.sampled_from("abc"), max_size=6)


@given(few, few)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(wanted, written):
    def of(words):
        return {found for size in range(len(words) + 1) for found in combinations(words, size)}

    longest = max(len(found) for found in of(wanted) & of(written))
    recall, precision = longest / max(1, len(wanted)), longest / max(1, len(written))
    f1 = 2 * recall * precision / (recall + precision) if longest else float(wanted == written)
    assert rouge_l(" ".join(wanted), " ".join(written)) == pytest.approx(f1)


def test_words_of_any_alphabet_count_and_letters_case_does_not():
    assert rouge_l("L'été à Kyōto", "l’ÉTÉ: à kyōto!") == 1
    assert rouge_l("京都 の 夏", "京都 の 冬") == pytest.approx(2 / 3)


def test_spaces_at_the_ends_are_no_difference_and_no_answer_is_one():
    found = wording(["a b", "c", "", "d"], [" a b\n", None, None, "D"])
    assert found[names.EXACT_MATCH].value == 0.25
    assert found[names.ROUGE_L].value == 0.5
    assert found[names.QUALITY_TEXTS] == 4
