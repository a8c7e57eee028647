"""What was answered before is answered alike, within a bound, and counted."""

from hypothesis import given
from hypothesis import strategies as st

from mlflow_llmops.batching.memo import Memo


@given(st.lists(st.lists(st.text(max_size=4), unique=True, max_size=12), max_size=8), st.integers(0, 10))
def test_it_never_holds_more_than_its_bound_nor_another_answer(batches, rows):
    memo = Memo[str](rows)
    asked = 0
    for texts in batches:
        found = memo.known(texts)
        assert all(answer == text.upper() for text, answer in found.items())
        memo.keep({text: text.upper() for text in texts if text not in found})
        asked += len(texts)
        assert len(memo) <= rows
    assert memo.hits + memo.misses == (asked if rows else 0)


def test_the_text_that_was_asked_for_longest_ago_goes_first():
    memo = Memo[int](2)
    memo.keep({"a": 1, "b": 2})
    memo.known(["a"])
    memo.keep({"c": 3})
    assert memo.known(["a", "b", "c"]) == {"a": 1, "c": 3}
    assert (memo.hits, memo.misses) == (3, 1)


def test_what_else_an_answer_depends_on_is_part_of_the_question():
    memo = Memo[int](9)
    memo.keep({"a": 1}, how="short")
    assert memo.known(["a"], how="long") == memo.known(["a"]) == {}
    assert memo.known(["a"], how="short") == {"a": 1}


def test_lone_surrogates_and_long_texts_are_texts():
    memo = Memo[int](9)
    memo.keep({"\ud800": 1, "a\udfff": 2, "x" * 10**6: 3})
    assert memo.known(["\ud800", "a\udfff", "x" * 10**6]) == {"\ud800": 1, "a\udfff": 2, "x" * 10**6: 3}
