"""What can be known of a scoring job's input and output before it runs, without Spark."""

import csv
import io
import json
import sys
import tempfile
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlflow_llmops.errors import DataError

READERS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json"}
TEXT = "string"
PREDICTION = "prediction"
ADDED = (PREDICTION, f"{PREDICTION}_error", f"{PREDICTION}_meta")
"""The columns that scoring adds."""
TABLE, DELTA = "table:", "delta:"
"""Before the name of a table of the catalogue, and before a folder of Delta Lake."""


def check_tables(
    source: str | None,
    output: str,
    input_col: str | None = None,
    added: Sequence[str] = ADDED,
    id_col: str | None = None,
    overwrite: bool = True,
) -> None:
    """Look at what a job would read and write; `source=None` is no input yet, what is no path on this machine is left
    to Spark.

    Raises DataError for an input that is not there or has no text column `input_col` (None: not looked at), for an
    output that is no earlier result of ours or cannot be written, and for any that exists unless `overwrite`.
    """
    if not is_path(output) and source == output:
        raise DataError(f"score_output={output} is score_input; write elsewhere")
    target = Path(output).resolve()
    here = source is not None and is_path(source)
    if here:
        _check_input(str(source), Path(str(source)).resolve(), input_col, added, id_col)
    if not is_path(output):
        return
    if here and _overlap(Path(str(source)).resolve(), target):
        raise DataError(f"score_output={output} holds or lies in score_input={source}; write elsewhere")
    if target.is_file() or (target.is_dir() and any(target.iterdir()) and not (target / "_SUCCESS").exists()):
        raise DataError(f"score_output={output} exists and is no table that Spark wrote; remove it, or write elsewhere")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise DataError(f"score_output={output} exists; give overwrite=true to replace it, or write elsewhere")
    _check_writable(output, target)


def check_checkpoint(checkpoint: str | None, source: str | None = None, output: str | None = None) -> None:
    """Raises DataError for a checkpoint that holds the job's input or output, or lies in it: an output is replaced as a
    whole, and an input is read as a whole. What is no path of this machine is not looked at."""
    if checkpoint is None or not is_path(checkpoint):
        return
    target = Path(checkpoint).resolve()
    for option, place in (("score_input", source), ("score_output", output)):
        if place is not None and is_path(place) and _overlap(Path(place).resolve(), target):
            raise DataError(f"checkpoint={checkpoint} holds or lies in {option}={place}; name a folder beside it")


def is_path(place: str) -> bool:
    """And not a table's name, or something with a scheme."""
    return "://" not in place and not place.startswith((TABLE, DELTA))


def _overlap(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents


def _check_input(source: str, given: Path, input_col: str | None, added: Sequence[str], id_col: str | None) -> None:
    if not given.exists():
        raise DataError(f"score_input={source}: there is no such file; check the path (seen from {Path.cwd()})")
    if given.suffix.lower() not in READERS:
        raise DataError(
            f"score_input={source}: give a {', '.join(READERS)} file, {TABLE}name for a table, or {DELTA}folder"
        )
    if input_col is None:
        return
    try:
        types = _types(given, input_col, id_col)
    except UnicodeDecodeError as error:
        raise DataError(f"score_input={source} is not UTF-8; convert it, for example with iconv -t UTF-8") from error
    except (pa.ArrowException, OSError, csv.Error) as error:
        raise unreadable(source, str(error)) from error
    check_columns(source, types, input_col, added, id_col)


def input_columns(input_col: str, have: Container[str]) -> tuple[str, ...]:
    """The column of that name, or those that it names with commas between."""
    return (input_col,) if input_col in have else tuple(name.strip() for name in input_col.split(","))


def check_columns(
    source: str, types: Mapping[str, str], input_col: str, added: Sequence[str] = ADDED, id_col: str | None = None
) -> None:
    """Raises DataError where a column is not there or no text, or where one that scoring adds is taken."""
    columns = input_columns(input_col, types)
    for option, name in [*(("input_col", name) for name in columns), ("id_col", id_col)]:
        if name is not None and name not in types:
            raise DataError(f"{option}={name}: {source} has no such column; it has: {', '.join(types)}")
    lower = {name.lower() for name in types}  # Spark's names know no case
    for name in added:
        if name.lower() in lower:
            raise DataError(
                f"{source} has a column {name} already, which scoring adds; rename it, or change output_col"
            )
    if other := next((name for name in columns if types[name] != TEXT), None):
        raise DataError(
            f"input_col={other}: this column of {source} holds {types[other]}, not text; "
            "name a text column, or write it as text first"
        )


def _check_writable(output: str, target: Path) -> None:
    """Try it: permission bits tell nothing to root or of a read-only disk."""
    # Spark removes an earlier result before it writes, so the folder above must let it too.
    for wanted in (target.parent, target):
        nearest = next(folder for folder in (wanted, *wanted.parents) if folder.exists())
        try:
            tempfile.TemporaryDirectory(prefix=".llmops-", dir=nearest).cleanup()
        except OSError as error:
            raise DataError(f"score_output={output} cannot be written: {nearest}: {error.strerror}") from error


def _types(given: Path, input_col: str, id_col: str | None) -> dict[str, str]:
    """The columns and what they hold, from the head of a file or of a folder as Spark writes them."""
    inside = (path for path in sorted(given.rglob("*")) if path.is_file())
    visible = (path for path in inside if not any(part[0] in "._" for part in path.relative_to(given).parts))
    files = [given] if given.is_file() else list(visible)
    if not files:
        return {}
    kind = READERS[given.suffix.lower()]
    folders = files[0].relative_to(given).parts[:-1]
    partitions = dict.fromkeys((name.partition("=")[0] for name in folders if "=" in name), TEXT)
    if kind == "parquet":
        return {field.name: _name_of_arrow(field.type) for field in pq.read_schema(files[0])} | partitions
    if kind == "csv":  # without a schema Spark takes every column as text
        return dict.fromkeys(_header(files), TEXT) | partitions
    return _json_types(files, input_col, id_col) | partitions


def _header(files: list[Path]) -> list[str]:
    """Of CSV files. Raises DataError where Spark would mix up columns or rows without a word: another header in a later
    file, or a quote that takes all that follows into its field."""
    headers: dict[Path, list[str]] = {}
    for file in files:
        quotes = 0
        with _open(file) as lines:  # to its end: Spark would put question marks where a file is in another encoding
            for line in lines:
                quotes += line.count('"')
        with _open(file) as lines:
            headers[file] = next(csv.reader(lines), [])
        if quotes % 2 and _ends_in_quotes(file):
            raise DataError(
                f"score_input={file}: a quote is not closed, and Spark would take all after it for one text; close it"
            )
        if headers[file] and headers[file] != headers[files[0]]:
            raise DataError(
                f"score_input={file} has the columns {', '.join(headers[file])}, and {files[0].name} beside it "
                f"{', '.join(headers[files[0]])}; write them in one order"
            )
    return headers[files[0]]


def _ends_in_quotes(file: Path) -> bool:
    before = csv.field_size_limit(sys.maxsize)
    try:
        with _open(file) as lines:
            for _ in csv.reader(lines, strict=True):
                pass
    except csv.Error as error:
        return "unexpected end of data" in str(error)
    finally:
        csv.field_size_limit(before)
    return False


def _json_types(files: list[Path], input_col: str, id_col: str | None) -> dict[str, str]:
    """Reads on until it meets a text in `input_col`: Spark looks at all rows, and one text makes a text column."""
    types: dict[str, str] = {}
    for path in files:
        with _open(path) as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                except ValueError:  # a row of nulls, to Spark
                    continue
                for name, value in row.items() if isinstance(row, dict) else ():
                    if value is None:
                        types.setdefault(name, TEXT)
                    else:
                        types[name] = TEXT if isinstance(value, str) else type(value).__name__
                if isinstance(row, dict) and isinstance(row.get(input_col), str) and (id_col or input_col) in types:
                    return types
    return types


def _open(path: Path) -> io.TextIOWrapper:
    """Unpacked where the name says that it is packed, as Spark's `part-0.csv.gz`."""
    return io.TextIOWrapper(pa.input_stream(str(path)), encoding="utf-8-sig", newline="")


def _name_of_arrow(type_: pa.DataType) -> str:
    if pa.types.is_dictionary(type_):
        return _name_of_arrow(type_.value_type)
    is_text = pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)
    return TEXT if is_text else str(type_)


def unreadable(source: str, said: str) -> DataError:
    """The error of a broken input, whoever met it."""
    first = said.partition("\n")[0][:200]
    return DataError(f"score_input={source} cannot be read ({first}); check that it is whole, or write it again")
