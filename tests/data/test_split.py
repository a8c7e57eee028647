"""One table becomes three that share nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llmops.data.split import cut, keep_apart
from mlflow_llmops.data.texts import Texts
from mlflow_llmops.errors import ConfigError, DataError

ROWS = Texts(tuple(f"text number {i}" for i in range(1000)), tuple("xy"[i % 2] for i in range(1000)))
SHARES = (0.8, 0.1, 0.1)
TRAIN = Texts(("a", "b", "c", "d"), ("x", "y", "x", "y"))
DEV = Texts(("e", "f"), ("x", "y"))
TEST = Texts(("g", "h"), ("x", "y"))


@given(st.permutations(range(60)))
def test_a_cut_does_not_depend_on_the_order_of_the_rows(order):
    rows = ROWS.pick(range(60))
    for part, shuffled in zip(cut(rows, SHARES), cut(rows.pick(order), SHARES), strict=True):
        pairs = [set(zip(split.texts, split.labels, strict=True)) for split in (part, shuffled)]
        assert pairs[0] == pairs[1]


def test_a_cut_keeps_its_parts_when_rows_are_added():
    before, after = cut(ROWS.pick(range(500)), SHARES), cut(ROWS, SHARES)
    for small, large in zip(before, after, strict=True):
        assert set(small.texts) <= set(large.texts)


def test_a_cut_is_a_partition_of_about_the_shares():
    parts = cut(ROWS, SHARES)
    assert sorted(sum((part.texts for part in parts), ())) == sorted(ROWS.texts)
    for part, share in zip(parts, SHARES, strict=True):
        assert abs(len(part) - 1000 * share) < 50


def test_equal_texts_fall_into_one_part():
    twice = Texts(ROWS.texts * 2, ROWS.labels * 2)
    parts = [set(part.texts) for part in cut(twice, SHARES)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def test_dropped_overlap_is_counted_and_gone():
    dev, test = Texts(("e", "a"), ("x", "x")), Texts(("g", "b"), ("x", "y"))
    splits = keep_apart(TRAIN, dev, test, "here", "drop")
    assert splits.train == Texts(("c", "d"), ("x", "y"))
    assert splits.overlap_removed == 2
    assert (splits.dev, splits.test) == (dev, test)


def test_every_copy_of_a_shared_text_counts():
    train = Texts((*TRAIN.texts, "a"), (*TRAIN.labels, "x"))
    splits = keep_apart(train, Texts(("a",), ("x",)), TEST, "here")
    assert splits.overlap_removed == 2
    assert "a" not in splits.train.texts


def test_overlap_can_be_an_error():
    with pytest.raises(DataError, match=r"data=here: 1 texts .* 'a'.*overlap=drop or overlap=allow"):
        keep_apart(TRAIN, Texts(("a",), ("x",)), TEST, "here", "error")


def test_overlap_can_be_allowed():
    splits = keep_apart(TRAIN, Texts(("a",), ("x",)), TEST, "here", "allow")
    assert splits.train == TRAIN
    assert splits.overlap_removed == 0


def test_texts_of_dev_that_stand_in_test_leave_dev():
    dev = Texts(("e", "g", "g", "f"), ("x", "x", "x", "y"))
    splits = keep_apart(TRAIN, dev, TEST, "here", "drop")
    assert (splits.train, splits.dev, splits.test) == (TRAIN, DEV, TEST)
    assert (splits.overlap_removed, splits.overlap_kept) == (2, 0)


def test_a_text_of_all_three_stays_in_test_only():
    dev, test = Texts(("e", "a"), ("x", "x")), Texts(("g", "a"), ("x", "x"))
    splits = keep_apart(TRAIN, dev, test, "here", "drop")
    assert [split.texts for split in (splits.train, splits.dev, splits.test)] == [("b", "c", "d"), ("e",), ("g", "a")]
    assert splits.overlap_removed == 2


def test_overlap_of_dev_and_test_can_be_an_error():
    with pytest.raises(DataError, match=r"data=here: 1 texts of the dev split .* 'g'.*overlap=drop or overlap=allow"):
        keep_apart(TRAIN, Texts(("e", "g"), ("x", "x")), TEST, "here", "error")


def test_allowed_overlap_is_counted():
    dev = Texts(("e", "g", "a"), ("x", "x", "x"))
    splits = keep_apart(TRAIN, dev, TEST, "here", "allow")
    assert (splits.train, splits.dev, splits.test) == (TRAIN, dev, TEST)
    assert (splits.overlap_removed, splits.overlap_kept) == (0, 2)


def test_a_dev_split_that_overlap_empties_is_named():
    with pytest.raises(DataError, match="data=here: the dev split is empty"):
        keep_apart(TRAIN, TEST, TEST, "here", "drop")


@pytest.mark.parametrize("overlap", ["drop", "error", "allow"])
def test_without_overlap_nothing_happens(overlap):
    splits = keep_apart(TRAIN, DEV, TEST, "here", overlap)
    assert (splits.train, splits.overlap_removed, splits.overlap_kept) == (TRAIN, 0, 0)


def test_an_unknown_overlap_names_the_known():
    with pytest.raises(ConfigError, match="overlap='keep' is not known; choose one of: drop, error, allow"):
        keep_apart(TRAIN, DEV, TEST, "here", "keep")


@pytest.mark.parametrize("empty", ["train", "dev", "test"])
def test_an_empty_split_is_named(empty):
    parts = {"train": TRAIN, "dev": DEV, "test": TEST, empty: Texts(())}
    with pytest.raises(DataError, match=f"data=here: the {empty} split is empty"):
        keep_apart(**parts, source="here")


def test_a_train_split_that_overlap_empties_is_named():
    with pytest.raises(DataError, match="data=here: every text of the train split stands in dev or test too"):
        keep_apart(TRAIN, TRAIN, TEST, "here", "drop")


@pytest.mark.parametrize("blank", ["train", "dev", "test"])
def test_a_blank_split_is_named(blank):
    parts = {"train": TRAIN, "dev": DEV, "test": TEST, blank: Texts((" ", "\t\n"), ("x", "y"))}
    with pytest.raises(DataError, match=f"data=here: every text of the {blank} split is blank"):
        keep_apart(**parts, source="here")


def test_labels_that_differ_by_white_space_only_are_named():
    with pytest.raises(DataError, match="data=here: the labels ' x' and 'x' differ by white space only"):
        keep_apart(TRAIN, Texts(DEV.texts, (" x", "y")), TEST, "here")


def test_one_label_is_no_classifier():
    same = Texts(TRAIN.texts, ("x",) * 4)
    with pytest.raises(DataError, match=r"data=here: the train split has one label only \('x'\)"):
        keep_apart(same, DEV, TEST, "here")


@pytest.mark.parametrize("where", ["dev", "test"])
def test_a_label_that_training_never_saw_is_named(where):
    parts = {"dev": DEV, "test": TEST, where: Texts(("i", "j"), ("x", "new"))}
    with pytest.raises(DataError, match=r"data=here: labels .* never saw: new \(1 in all\)"):
        keep_apart(TRAIN, **parts, source="here")


def test_many_unseen_labels_are_counted_and_five_named():
    many = Texts(tuple(f"t{i}" for i in range(7)), tuple(f"new{i}" for i in range(7)))
    with pytest.raises(DataError, match=r"new0, new1, new2, new3, new4 \.\.\. \(7 in all\)"):
        keep_apart(TRAIN, DEV, many, "here")


def test_texts_without_labels_need_none():
    splits = keep_apart(Texts(TRAIN.texts), Texts(DEV.texts), Texts(TEST.texts), "here")
    assert splits.labels == ()
