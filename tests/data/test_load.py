"""Every way to give data, and what each mistake is told."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mlflow_llmops.data.load import load_data
from mlflow_llmops.data.texts import Texts
from mlflow_llmops.errors import ConfigError, DataError

ROWS = [(f'text, with a comma and a "quote", number {i}\nand a line', "xyz"[i % 3]) for i in range(200)]


def write(path: Path, rows=ROWS, text: str = "text", label: str = "label") -> str:
    frame = pd.DataFrame(rows, columns=[text, label])
    match path.suffix:
        case ".csv":
            frame.to_csv(path, index=False)
        case ".jsonl":
            path.write_text("".join(json.dumps(dict(zip((text, label), row, strict=True))) + "\n" for row in rows))
        case ".parquet":
            frame.to_parquet(path)
    return str(path)


def pairs(*splits) -> list[tuple[str, str]]:
    return sorted(pair for split in splits for pair in zip(split.texts, split.labels, strict=True))


def refused(match: str, *args, **kwargs) -> None:
    with pytest.raises(DataError, match=match):
        load_data(*args, **kwargs)


# good data


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_is_read_as_it_stands_and_cut(tmp_path, suffix):
    splits = load_data(write(tmp_path / f"rows{suffix}"))
    assert pairs(splits.train, splits.dev, splits.test) == sorted(ROWS)
    assert len(splits.train) > len(splits.dev) + len(splits.test) > 0
    assert (splits.labels, splits.overlap_removed) == (("x", "y", "z"), 0)


def test_all_formats_give_the_same_data(tmp_path):
    loaded = {load_data(write(tmp_path / f"rows{suffix}")).fingerprint for suffix in (".csv", ".jsonl", ".parquet")}
    assert len(loaded) == 1


def test_the_split_does_not_depend_on_the_order_of_the_file(tmp_path):
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    first, second = load_data(write(tmp_path / "a.csv")), load_data(write(tmp_path / "b.csv", shuffled))
    for name in ("train", "dev", "test"):
        assert pairs(getattr(first, name)) == pairs(getattr(second, name))


@pytest.mark.parametrize("dev", ["dev", "validation", "valid"])
def test_a_folder_gives_each_split_its_file(tmp_path, dev):
    write(tmp_path / "train.csv", ROWS[:100])
    write(tmp_path / f"{dev}.jsonl", ROWS[100:150])
    write(tmp_path / "test.parquet", ROWS[150:])
    splits = load_data(str(tmp_path))
    for split, rows in ((splits.train, ROWS[:100]), (splits.dev, ROWS[100:150]), (splits.test, ROWS[150:])):
        assert (split.texts, split.labels) == tuple(zip(*rows, strict=True))


def test_a_folder_without_dev_takes_it_from_train(tmp_path):
    write(tmp_path / "train.csv", ROWS[:150])
    write(tmp_path / "test.csv", ROWS[150:])
    splits = load_data(str(tmp_path))
    assert pairs(splits.train, splits.dev) == sorted(ROWS[:150])
    assert pairs(splits.test) == sorted(ROWS[150:])
    assert 0 < len(splits.dev) < len(splits.train)


def test_a_folder_without_test_cuts_dev_into_two(tmp_path):
    write(tmp_path / "train.csv", ROWS[:100])
    write(tmp_path / "dev.csv", ROWS[100:])
    splits = load_data(str(tmp_path))
    assert pairs(splits.train) == sorted(ROWS[:100])
    assert pairs(splits.dev, splits.test) == sorted(ROWS[100:])
    assert min(len(splits.dev), len(splits.test)) > 0


def test_eval_data_is_the_test_split(tmp_path):
    splits = load_data(write(tmp_path / "a.csv", ROWS[:150]), eval_data=write(tmp_path / "b.jsonl", ROWS[150:]))
    assert pairs(splits.test) == sorted(ROWS[150:])
    assert pairs(splits.train, splits.dev) == sorted(ROWS[:150])


def test_eval_data_takes_the_place_of_a_folders_test(tmp_path):
    for name, rows in {"train": ROWS[:80], "dev": ROWS[80:120], "test": ROWS[120:160]}.items():
        write(tmp_path / f"{name}.csv", rows)
    splits = load_data(str(tmp_path), eval_data=write(tmp_path / "other.csv", ROWS[160:]))
    assert pairs(splits.test) == sorted(ROWS[160:])


def test_texts_of_eval_data_leave_the_other_splits(tmp_path):
    data, eval_data = write(tmp_path / "a.csv"), write(tmp_path / "b.csv", ROWS[:20])
    splits = load_data(data, eval_data=eval_data)
    kept = load_data(data, eval_data=eval_data, overlap="allow")
    assert splits.overlap_removed == kept.overlap_kept == 20
    assert len(kept.train) + len(kept.dev) - len(splits.train) - len(splits.dev) == 20
    assert not {*splits.train.texts, *splits.dev.texts} & set(splits.test.texts)
    refused(r"data=.*a\.csv: \d+ texts of the train split", data, eval_data=eval_data, overlap="error")


def test_columns_are_chosen_by_name(tmp_path):
    splits = load_data(write(tmp_path / "a.csv", text="review", label="stars"), "review", "stars")
    assert pairs(splits.train, splits.dev, splits.test) == sorted(ROWS)


def test_a_task_without_labels_needs_no_label_column(tmp_path):
    path = tmp_path / "a.csv"
    pd.DataFrame({"text": [text for text, _ in ROWS]}).to_csv(path, index=False)
    splits = load_data(str(path), label_column=None)
    assert splits.train.labels == splits.labels == ()
    assert len(splits.train) + len(splits.dev) + len(splits.test) == len(ROWS)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_words_that_look_like_nothing_stay_words(tmp_path, suffix):
    words = ["NA", "null", "None", "nan", "n/a", "2024-01-31", "1e5", "007"]
    rows = [(word, "NA" if i % 2 else "null") for i, word in enumerate(words)]
    for name in ("train", "dev", "test"):
        write(tmp_path / f"{name}{suffix}", rows)
    splits = load_data(str(tmp_path), overlap="allow")
    assert splits.train == splits.dev == splits.test == Texts(*zip(*rows, strict=True))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_digits_as_text_and_label_are_kept_as_written(tmp_path, suffix):
    rows = [(f"{i:04}", f"{i % 2:02}") for i in range(100)]
    splits = load_data(write(tmp_path / f"a{suffix}", rows))
    assert splits.labels == ("00", "01")
    assert pairs(splits.train, splits.dev, splits.test) == rows


def test_numbers_as_labels_become_their_digits(tmp_path):
    splits = load_data(write(tmp_path / "a.jsonl", [(text, i % 2) for i, (text, _) in enumerate(ROWS)]))
    assert splits.labels == ("0", "1")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_whole_numbers_stored_as_floats_are_whole_numbers(tmp_path, suffix):
    data = write(tmp_path / f"a{suffix}", [(text, i % 2 * 1.0) for i, (text, _) in enumerate(ROWS)])
    assert load_data(data).labels == ("0", "1")
    data = write(tmp_path / f"b{suffix}", [(text, i % 2 / 2 + 1) for i, (text, _) in enumerate(ROWS)])
    assert load_data(data).labels == ("1", "1.5")


def test_whole_numbers_stored_as_small_floats_are_whole_numbers(tmp_path):
    frame = pd.DataFrame({"text": [text for text, _ in ROWS], "label": [i % 2 for i in range(200)]})
    frame.astype({"label": "float32"}).to_parquet(tmp_path / "a.parquet")
    assert load_data(str(tmp_path / "a.parquet")).labels == ("0", "1")


def test_a_blank_text_among_others_stays(tmp_path):
    splits = load_data(write(tmp_path / "a.csv", [*ROWS, ("  ", "x")]))
    assert "  " in {*splits.train.texts, *splits.dev.texts, *splits.test.texts}


# mistakes


@pytest.mark.parametrize("rows", ["one, two,x\nthree, four,y\n", "a,b,c,x\nd,e,f,y\n", "a,x,\nb,y,\n"])
def test_commas_that_are_not_quoted(tmp_path, rows):
    (tmp_path / "a.csv").write_text("text,label\n" + rows)
    refused(r"data=.*a\.csv: rows have more fields than the header; quote texts", str(tmp_path / "a.csv"))


@pytest.mark.parametrize("header", ["text,text,label", "text,label,text", "text,label,label"])
def test_a_column_that_is_there_twice(tmp_path, header):
    (tmp_path / "a.csv").write_text(f"{header}\na,x,b\n")
    (twice,) = {name for name in header.split(",") if header.split(",").count(name) > 1}
    refused(rf"data=.*a\.csv: more than one column is called {twice};", str(tmp_path / "a.csv"))


def test_a_column_whose_name_looks_like_a_second_one(tmp_path):
    pd.DataFrame(ROWS, columns=["text", "label"]).assign(**{"text.1": "more"}).to_csv(tmp_path / "a.csv", index=False)
    splits = load_data(str(tmp_path / "a.csv"))
    assert pairs(splits.train, splits.dev, splits.test) == sorted(ROWS)


def test_an_empty_label_column(tmp_path):
    refused(r"label_column is empty; name the column", write(tmp_path / "a.csv"), label_column="")


def test_one_column_for_texts_and_labels(tmp_path):
    refused(r"label_column=text is the text_column too", write(tmp_path / "a.csv"), label_column="text")


@pytest.mark.parametrize(
    ("first", "second", "split"),
    [
        ("train.csv", "train.parquet", "train"),
        ("dev.csv", "validation.csv", "dev"),
        ("valid.jsonl", "dev.jsonl", "dev"),
        ("test.jsonl", "test.csv", "test"),
    ],
)
def test_two_files_for_one_split(tmp_path, first, second, split):
    for name in {"train.csv", first, second}:
        write(tmp_path / name)
    one, other = (name.replace(".", r"\.") for name in (first, second))
    refused(rf"data=.*: ({one} and {other}|{other} and {one}) could each be the {split} split", str(tmp_path))


@pytest.mark.parametrize("where", ["data", "eval_data"])
def test_labels_that_differ_by_white_space_only(tmp_path, where):
    rows = {"data": list(ROWS), "eval_data": [("a new text", "x")]}
    rows[where].append(("another text", " x"))
    data, eval_data = (write(tmp_path / f"{name}.csv", each) for name, each in rows.items())
    refused(r"data=.*: the labels ' x' and 'x' differ by white space only", data, eval_data=eval_data)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_of_blanks(tmp_path, suffix):
    blanks = [(" " * (i + 1), "xy"[i % 2]) for i in range(40)]
    refused(r"data=.*: every text of the train split is blank", write(tmp_path / f"a{suffix}", blanks))


def test_eval_data_of_blanks(tmp_path):
    eval_data = write(tmp_path / "b.csv", [("  ", "x"), ("\t", "y")])
    refused(r"every text of the test split is blank", write(tmp_path / "a.csv"), eval_data=eval_data)


@pytest.mark.parametrize("option", ["data", "eval_data"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_missing_file(tmp_path, option, suffix):
    given = {"data": write(tmp_path / "a.csv"), option: str(tmp_path / f"gone{suffix}")}
    refused(rf"^{option}=.*gone{suffix}: there is no such file", **given)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_an_empty_file(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text("")
    refused(rf"data=.*a{suffix}: the file (is empty|has no rows)", str(path))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_header_without_rows(tmp_path, suffix):
    refused(r"data=.*: the file has no rows", write(tmp_path / f"a{suffix}", []))


@pytest.mark.parametrize(
    "content", ["text,label\ncafé,x\n", '{"text": "café", "label": "x"}\n'], ids=[".csv", ".jsonl"]
)
def test_a_file_that_is_not_utf8(tmp_path, content):
    path = tmp_path / ("a.csv" if content.startswith("text") else "a.jsonl")
    path.write_bytes(content.encode("latin-1"))
    refused(r"data=.*: not UTF-8; .*iconv", str(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b'text,label\n"never closed,x\n'),
        ("a.csv", b"text,label\na,b,c,d\ne,f,g,h,i\n"),
        ("a.jsonl", b'{"text": "a", "label":\n'),
        ("a.parquet", b"not a parquet file"),
    ],
)
def test_a_broken_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(rf"data=.*{name}: cannot be read as {Path(name).suffix[1:]}", str(tmp_path / name))


def test_a_missing_text_column_names_those_that_are_there(tmp_path):
    data = write(tmp_path / "a.csv", text="review", label="stars")
    refused(r"text_column=text: .* has no such column; it has: review, stars", data, label_column="stars")


def test_a_missing_label_column_names_those_that_are_there(tmp_path):
    refused(r"label_column=mood: .* it has: text, label", write(tmp_path / "a.csv"), label_column="mood")


def test_a_missing_column_of_eval_data_names_that_file(tmp_path):
    eval_data = write(tmp_path / "b.csv", text="review")
    refused(r"text_column=text: .*b\.csv has no such column", write(tmp_path / "a.csv"), eval_data=eval_data)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("column", ["text", "label"])
def test_nulls_are_counted(tmp_path, suffix, column):
    holes = [(None, "x") if column == "text" else ("a text", None)] * 3
    refused(
        rf"{column}_column={column}: 3 of 203 rows of .* are null",
        write(tmp_path / f"a{suffix}", ROWS + holes),
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_column_that_is_no_text(tmp_path, suffix):
    rows = [(i, label) for i, (_, label) in enumerate(ROWS)]
    refused(r"text_column=text: .* not text", write(tmp_path / f"a{suffix}", rows))


def test_one_label_only(tmp_path):
    refused(r"data=.*: the train split has one label only", write(tmp_path / "a.csv", [(t, "x") for t, _ in ROWS]))


def test_a_label_of_eval_data_that_training_never_saw(tmp_path):
    eval_data = write(tmp_path / "b.csv", [("a new text", "unheard")])
    refused(r"data=.*never saw: unheard \(1 in all\)", write(tmp_path / "a.csv"), eval_data=eval_data)


def test_an_unknown_overlap(tmp_path):
    with pytest.raises(ConfigError, match="overlap='keep' is not known; choose one of: drop, error, allow"):
        load_data(write(tmp_path / "a.csv"), overlap="keep")


def test_too_few_rows_to_cut(tmp_path):
    refused(r"data=.*: the (dev|test) split is empty", write(tmp_path / "a.csv", ROWS[:2]))


def test_a_folder_without_splits(tmp_path):
    refused(r"data=.*: the folder has none of train, dev, test as \.csv, \.jsonl, \.parquet", str(tmp_path))


def test_a_folder_without_train(tmp_path):
    write(tmp_path / "test.csv")
    refused(r"data=.*: there is no train split; it has: test", str(tmp_path))


@pytest.mark.parametrize("option", ["data", "eval_data"])
@pytest.mark.parametrize("name", ["a.txt", "a"])
def test_an_unknown_suffix(tmp_path, option, name):
    (tmp_path / name).write_text("text,label\na,x\n")
    given = {"data": write(tmp_path / "a.csv"), option: str(tmp_path / name)}
    refused(rf"^{option}=.*: files of type (\.txt|\(none\)) are not read; give \.csv, \.jsonl, \.parquet", **given)


def test_an_unknown_builtin_names_the_known():
    refused("data=builtin:poems is not known; the built-in data set is builtin:docstrings", "builtin:poems")


def test_a_name_that_the_hub_does_not_give_says_what_to_check(tmp_path):
    script = (
        "from mlflow_llmops.data.load import load_data\n"
        "from mlflow_llmops.errors import DataError\n"
        "try: load_data('nobody/nothing')\n"
        "except DataError as error: print(error)\n"
    )
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", script], env=offline, capture_output=True, text=True, check=True
    ).stdout
    assert "data=nobody/nothing is neither a file or folder here nor a data set" in said
    assert "check the path" in said


def test_a_data_set_of_the_hub_is_read_with_its_splits_and_the_names_of_its_labels(tmp_path, monkeypatch):
    """The code that reads the hub, on a data set as the hub stores it, in a folder here."""
    import datasets

    from mlflow_llmops.data import load

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    for split, count in {"train": 40, "validation": 8, "test": 6}.items():
        rows = {"text": [f"{split} {i}" for i in range(count)], "label": [i % 2 for i in range(count)]}
        (tmp_path / "set").mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "set" / f"{split}-00000-of-00001.parquet")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    frames = load._hub(str(tmp_path / "set"))
    assert {name: len(frame) for name, frame in frames.items()} == {"train": 40, "dev": 8, "test": 6}
    assert frames["test"]["label"].tolist() == ["no", "yes"] * 3
