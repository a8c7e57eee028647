"""The built-in data set is real text that does not give its label away."""

import re

import pytest

from mlflow_llmops.data import builtin
from mlflow_llmops.data.builtin import LIBRARIES, MASK, TEXTS_PER_LIBRARY, WORDS, docstrings

pytestmark = pytest.mark.slow

# written out again, by another rule than the package's: names of up to three letters are whole words
NAMES = re.compile(
    "|".join(rf"\b{name}\b" if len(name) < 4 else re.escape(name) for names in LIBRARIES.values() for name in names),
    re.IGNORECASE,
)


def test_every_label_is_there_and_none_goes_over_the_cap():
    labels = docstrings().labels
    counts = {library: labels.count(library) for library in LIBRARIES}
    assert set(labels) == set(LIBRARIES)
    assert min(counts.values()) >= 500
    assert max(counts.values()) <= TEXTS_PER_LIBRARY


def test_no_text_names_a_library():
    leaks = [text for text in docstrings().texts if NAMES.search(text)]
    assert leaks == []
    assert any(MASK in text for text in docstrings().texts)


def test_texts_are_distinct_and_of_the_promised_length():
    texts = docstrings().texts
    assert len(set(texts)) == len(texts)
    lengths = [len(text.split()) for text in texts]
    assert WORDS[0] <= min(lengths)
    assert max(lengths) <= WORDS[1]


def test_a_process_of_its_own_reads_what_this_one_reads():
    here = builtin._library_texts("sqlalchemy")
    assert here == builtin._library_texts_elsewhere("sqlalchemy")
    assert len(here) > 500


def test_a_library_that_is_not_installed_gives_nothing():
    assert builtin._library_texts("no_such_library_anywhere") == []
