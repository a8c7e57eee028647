"""From the `data` option to splits: a file, a folder of files, a Hugging Face id, or `builtin:docstrings`."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlflow_llmops.data.split import cut, keep_apart
from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.errors import DataError

SUFFIXES = (".csv", ".jsonl", ".parquet")
BUILTIN = "builtin:docstrings"
SPLIT_NAMES = {"train": ("train",), "dev": ("dev", "validation", "valid"), "test": ("test",)}
SHARES = (0.8, 0.1, 0.1)


def load_data(
    data: str,
    text_column: str = "text",
    label_column: str | None = "label",
    eval_data: str | None = None,
    overlap: str = "drop",
) -> Splits:
    """Read `data` into splits; `label_column=None` for tasks without labels.

    One file is cut 80/10/10 by each text's hash. `eval_data`, a file, is the test split; where a source has no dev
    split, an eighth of train becomes it, and where it has no test split, dev is cut into two.

    Raises DataError, naming the option and the next step.
    """
    if label_column == "":
        raise DataError("label_column is empty; name the column that holds the labels")
    if label_column == text_column:
        raise DataError(f"label_column={label_column} is the text_column too; name the column that holds the labels")
    if data == BUILTIN:
        from mlflow_llmops.data.builtin import docstrings

        parts = dict(zip(SPLIT_NAMES, cut(docstrings(), SHARES), strict=True))
        if label_column is None:
            parts = {name: Texts(split.texts) for name, split in parts.items()}
    elif data.startswith("builtin:"):
        raise DataError(f"data={data} is not known; the built-in data set is {BUILTIN}")
    else:
        frames = _frames(data)
        parts = {name: _texts(frame, text_column, label_column, data) for name, frame in frames.items()}
    if eval_data:
        parts["test"] = _texts(read_rows(Path(eval_data), "eval_data"), text_column, label_column, eval_data)
    parts = _complete(parts, data)
    return keep_apart(parts["train"], parts["dev"], parts["test"], data, overlap)


def _complete(parts: dict[str, Texts], data: str) -> dict[str, Texts]:
    """Make the splits that the source does not have out of those that it has."""
    if "train" not in parts:
        raise DataError(f"data={data}: there is no train split; it has: {', '.join(parts) or 'nothing'}")
    match "dev" in parts, "test" in parts:
        case False, False:
            names = ("train", "dev", "test")
            return dict(zip(names, cut(parts["train"], SHARES), strict=True))
        case False, True:
            train, dev = cut(parts["train"], (0.875, 0.125))
            return {**parts, "train": train, "dev": dev}
        case True, False:
            dev, test = cut(parts["dev"], (0.5, 0.5))
            return {**parts, "dev": dev, "test": test}
    return parts


def _frames(data: str) -> dict[str, pd.DataFrame]:
    path = Path(data)
    if path.is_dir():
        return {split: read_rows(file, "data") for split, file in _files(path).items()}
    if path.suffix.lower() in SUFFIXES or path.exists():
        return {"train": read_rows(path, "data")}
    return _hub(data)


def _files(folder: Path) -> dict[str, Path]:
    """The file of each split that `folder` has."""
    files = {}
    for split, names in SPLIT_NAMES.items():
        possible = [folder / f"{name}{suffix}" for name in names for suffix in SUFFIXES]
        found = [file for file in possible if file.is_file()]
        if len(found) > 1:
            raise DataError(
                f"data={folder}: {' and '.join(file.name for file in found)} could each be the {split} split; keep one"
            )
        if found:
            files[split] = found[0]
    if not files:
        raise DataError(f"data={folder}: the folder has none of train, dev, test as {', '.join(SUFFIXES)}")
    return files


def _hub(data: str) -> dict[str, pd.DataFrame]:
    """A data set of the Hugging Face hub, or its local copy."""
    import datasets

    try:
        loaded = datasets.load_dataset(data)
    except (OSError, ValueError, ConnectionError) as error:
        raise DataError(
            f"data={data} is neither a file or folder here nor a data set that the Hugging Face hub gives "
            f"({_first_line(error)}); check the path, or give a {', '.join(SUFFIXES)} file"
        ) from error
    frames = {}
    for split, names in SPLIT_NAMES.items():
        found = next((name for name in names if name in loaded), None)
        if found:
            frame = loaded[found].to_pandas()
            for column, feature in loaded[found].features.items():
                if isinstance(feature, datasets.ClassLabel):
                    frame[column] = frame[column].map(feature.int2str)
            frames[split] = frame
    return frames


def read_rows(path: Path, option: str) -> pd.DataFrame:
    """The table in a CSV, JSONL or Parquet file. Raises DataError, naming `option`, where it cannot be read."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{option}={path}: files of type {suffix or '(none)'} are not read; give {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"{option}={path}: there is no such file; check the path (seen from {Path.cwd()})")
    # Fields are kept as they stand: "NA" and "007" are words, only an empty field is missing.
    as_written: dict[str, Any] = {"dtype": str, "keep_default_na": False, "na_values": [""], "encoding": "utf-8"}
    try:
        if suffix == ".csv":
            frame = pd.read_csv(path, **as_written)
            # pandas renames the second of two equal names
            header = pd.read_csv(path, header=None, nrows=1, **as_written).loc[0].dropna()
        elif suffix == ".jsonl":
            frame = pd.read_json(path, lines=True, encoding="utf-8", dtype=False, convert_dates=False)
            header = frame.columns.to_series()
        else:
            frame = pd.read_parquet(path)
            header = frame.columns.to_series()
    except UnicodeDecodeError as error:
        raise DataError(f"{option}={path}: not UTF-8; convert it, for example with iconv -t UTF-8") from error
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{option}={path}: the file is empty; it needs a header and rows") from error
    except (ValueError, OSError) as error:  # pandas' parsers and pyarrow raise ValueError's kin
        raise DataError(f"{option}={path}: cannot be read as {suffix[1:]}: {_first_line(error)}") from error
    if frame.empty:
        raise DataError(f"{option}={path}: the file has no rows")
    twice = header[header.duplicated()]
    if len(twice):
        raise DataError(f"{option}={path}: more than one column is called {twice.iloc[0]}; rename or remove one")
    if suffix == ".csv" and not isinstance(frame.index, pd.RangeIndex):
        # pandas takes what is too much as row names, and the columns shift
        raise DataError(f"{option}={path}: rows have more fields than the header; quote texts that hold commas")
    return frame


def _texts(frame: pd.DataFrame, text_column: str, label_column: str | None, source: str) -> Texts:
    wanted = {"text_column": text_column, **({"label_column": label_column} if label_column is not None else {})}
    for option, column in wanted.items():
        if column not in frame:
            have = ", ".join(map(str, frame.columns))
            raise DataError(f"{option}={column}: {source} has no such column; it has: {have}")
        missing = int(frame[column].isna().sum())
        if missing:
            raise DataError(
                f"{option}={column}: {missing} of {len(frame)} rows of {source} are null; fill or remove them"
            )
    texts = frame[text_column]
    if not texts.map(lambda value: isinstance(value, str)).all():
        raise DataError(f"text_column={text_column}: {source} holds values there that are not text")
    labels = tuple(map(_label, frame[label_column])) if label_column is not None else ()
    return Texts(tuple(texts), labels)


def _label(value: Any) -> str:
    """A label as text; whole numbers that Parquet or JSON stores as floats lose their point.

    Raises DataError for what is no single value.
    """
    if isinstance(value, bytes | list | dict | tuple | np.ndarray):
        raise DataError(f"label_column holds a {type(value).__name__} ({value!r:.60}); a label is a text or a number")
    return str(int(value) if isinstance(value, float | np.floating) and float(value).is_integer() else value)


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:160] if lines else type(error).__name__
