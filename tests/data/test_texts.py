"""Fingerprints tell data apart, and hashes depend on a text alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llmops.data.texts import Splits, Texts, stable_hash

A = Texts(("one", "two"), ("x", "y"))


@pytest.mark.parametrize(
    "other",
    [
        Texts(("two", "one"), ("y", "x")),
        Texts(("one", "two"), ("y", "x")),
        Texts(("one", "two")),
        Texts(("onetwo",), ("x", "y")),
        Texts(("one", "two", "x", "y")),
    ],
    ids=["order", "labels", "no labels", "joined", "labels as texts"],
)
def test_other_data_have_another_fingerprint(other):
    assert other.fingerprint != A.fingerprint


def test_equal_data_have_the_same_fingerprint():
    assert Texts(("one", "two"), ("x", "y")).fingerprint == A.fingerprint
    assert len(A.fingerprint) == 16
    assert int(A.fingerprint, 16) >= 0


def test_the_fingerprint_of_splits_sees_each_of_them():
    other = Texts(("three",), ("x",))
    parts = [Splits(A, A, A), Splits(other, A, A), Splits(A, other, A), Splits(A, A, other)]
    assert len({splits.fingerprint for splits in parts}) == len(parts)


def test_a_text_with_a_lone_surrogate_has_a_fingerprint():
    assert Texts(("\ud800",)).fingerprint != Texts(("\ud801",)).fingerprint
    assert stable_hash("\ud800") != stable_hash("\ud801")


@given(st.permutations(range(2)))
def test_pick_takes_rows_with_their_labels(positions):
    picked = A.pick(positions)
    assert dict(zip(picked.texts, picked.labels, strict=True)) == {"one": "x", "two": "y"}
    assert picked.texts == tuple(A.texts[position] for position in positions)


def test_pick_without_labels_has_none():
    assert Texts(("one", "two")).pick([1]) == Texts(("two",))


def test_labels_are_those_of_train_sorted():
    assert Splits(Texts(("a", "b", "c"), ("y", "x", "y")), A, Texts(("d",), ("z",))).labels == ("x", "y")


@given(st.text())
def test_the_hash_lies_in_the_unit_interval(text):
    assert 0 <= stable_hash(text) < 1


def test_hashes_are_spread_evenly():
    hashes = [stable_hash(f"text {i}") for i in range(4000)]
    counts = np.histogram(hashes, bins=10, range=(0, 1))[0]
    # five standard deviations of a binomial count
    assert abs(counts - 400).max() < 5 * np.sqrt(4000 * 0.1 * 0.9)
