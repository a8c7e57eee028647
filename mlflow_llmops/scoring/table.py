"""Score a table with a registered version through MLflow's own `spark_udf`."""

import csv
import io
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow.pyfunc
import pyarrow as pa
import pyarrow.parquet as pq
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql
from pyspark.sql.types import DataType, StringType

from mlflow_llmops.errors import DataError
from mlflow_llmops.tracking.signature import RESULT_TYPES

READERS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json"}
TEXT = "string"
UNREADABLE = re.compile(r"\[(?:PATH_NOT_FOUND|UNABLE_TO_INFER_SCHEMA|FAILED_READ_FILE)\b.*")
"""How Spark begins to say what is wrong with a file, and not with us."""


@dataclass(frozen=True)
class Scored:
    """What a scoring job did."""

    rows: int
    seconds: float
    output: Path


def spark_session(master: str = "") -> SparkSession:
    """The active session, or a new one on `master`; `local[*]` where nothing says otherwise."""
    # The workers must be this Python: PATH may have another one first.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("mlflow-llmops score")
    builder = builder.config("spark.ui.enabled", "false").config("spark.ui.showConsoleProgress", "true")
    session = builder.master(master or os.environ.get("MASTER", "local[*]")).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def score_table(
    spark: SparkSession,
    model_uri: str,
    source: str,
    output: str,
    input_col: str = "text",
    task: str = "text-classification",
) -> Scored:
    """Read `source`, add a struct column `prediction`, write `output` as Parquet; an output that exists is replaced.

    A row with a null text gets a null prediction, whatever the model.

    Raises DataError for a file or a column that is not there or holds something else.
    """
    check_tables(source, output, input_col)
    with _reading(source):
        frame = read_table(spark, source)
        types = {field.name: field.dataType for field in frame.schema}
        _check_column(source, input_col, {name: _name_of(type_) for name, type_ in types.items()})
        predict = mlflow.pyfunc.spark_udf(spark, model_uri, result_type=RESULT_TYPES[task], env_manager="local")
        text = sql.col(f"`{input_col.replace('`', '``')}`")
        # A Python UDF runs on the rows that `when` leaves out too, and a null fails the whole batch of a torch model.
        prediction = sql.when(text.isNotNull(), predict(sql.coalesce(text, sql.lit(""))))
        start = time.perf_counter()
        frame.withColumn("prediction", prediction).write.mode("overwrite").parquet(_absolute(output))
        seconds = time.perf_counter() - start
    return Scored(spark.read.parquet(_absolute(output)).count(), seconds, Path(output))


def check_tables(source: str, output: str, input_col: str | None = None) -> None:
    """What can be known without Spark and before the work; paths with a scheme (`s3://`) are left to Spark.

    Raises DataError for an input that is not there or has no text column `input_col` (None: not looked at), and for
    an output that is no earlier result of ours or cannot be written.
    """
    given, target = Path(source).resolve(), Path(output).resolve()
    if "://" not in source:
        _check_input(source, given, input_col)
    if "://" in output:
        return
    if "://" not in source and (given == target or given in target.parents or target in given.parents):
        raise DataError(f"score_output={output} holds or lies in score_input={source}; write elsewhere")
    if target.is_file() or (target.is_dir() and any(target.iterdir()) and not (target / "_SUCCESS").exists()):
        raise DataError(f"score_output={output} exists and is no table that Spark wrote; remove it, or write elsewhere")
    _check_writable(output, target)


def read_table(spark: SparkSession, source: str) -> DataFrame:
    """A Parquet, CSV or JSONL file or folder. Raises DataError where it is not there, broken or of no such type."""
    kind = READERS.get(Path(source).suffix.lower())
    if kind is None:
        raise DataError(f"score_input={source}: give a {', '.join(READERS)} file")
    reader = spark.read.option("header", "true").option("multiLine", str(kind == "csv").lower())
    reader = reader.option("escape", '"')  # a quote inside a field is doubled, as pandas and spreadsheets write it
    with _reading(source):
        return reader.format(kind).load(_absolute(source))


def _absolute(path: str) -> str:
    """Spark takes a relative path as seen from the folder that its JVM was started in, which may be another one."""
    return path if "://" in path else str(Path(path).absolute())


def _check_input(source: str, given: Path, input_col: str | None) -> None:
    if not given.exists():
        raise DataError(f"score_input={source}: there is no such file; check the path (seen from {Path.cwd()})")
    if given.suffix.lower() not in READERS:
        raise DataError(f"score_input={source}: give a {', '.join(READERS)} file")
    if input_col is None:
        return
    try:
        types = _types(given, input_col)
    except (pa.ArrowException, OSError, csv.Error) as error:
        raise _unreadable(source, str(error)) from error
    _check_column(source, input_col, types)


def _check_column(source: str, input_col: str, types: Mapping[str, str]) -> None:
    if input_col not in types:
        raise DataError(f"input_col={input_col}: {source} has no such column; it has: {', '.join(types)}")
    if types[input_col] != TEXT:
        raise DataError(
            f"input_col={input_col}: this column of {source} holds {types[input_col]}, not text; "
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


def _types(given: Path, input_col: str) -> dict[str, str]:
    """The columns and what they hold, from the head of a file or of a folder as Spark writes them."""
    inside = (path for path in sorted(given.rglob("*")) if path.is_file())
    visible = (path for path in inside if not any(part[0] in "._" for part in path.relative_to(given).parts))
    files = [given] if given.is_file() else list(visible)
    if not files:
        return {}
    kind = READERS[given.suffix.lower()]
    if kind == "parquet":
        return {field.name: _name_of_arrow(field.type) for field in pq.read_schema(files[0])}
    if kind == "csv":  # without a schema Spark takes every column as text
        with _open(files[0]) as lines:
            return dict.fromkeys(next(csv.reader(lines), []), TEXT)
    return _json_types(files, input_col)


def _json_types(files: list[Path], input_col: str) -> dict[str, str]:
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
                if isinstance(row, dict) and isinstance(row.get(input_col), str):
                    return types
    return types


def _open(path: Path) -> io.TextIOWrapper:
    """Unpacked where the name says that it is packed, as Spark's `part-0.csv.gz`."""
    return io.TextIOWrapper(pa.input_stream(str(path)), encoding="utf-8-sig", errors="replace", newline="")


def _name_of_arrow(type_: pa.DataType) -> str:
    if pa.types.is_dictionary(type_):
        return _name_of_arrow(type_.value_type)
    is_text = pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)
    return TEXT if is_text else str(type_)


def _name_of(type_: DataType) -> str:
    return TEXT if isinstance(type_, StringType) else type_.simpleString()


@contextmanager
def _reading(source: str) -> Iterator[None]:
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        if said := UNREADABLE.search(str(error)):
            raise _unreadable(source, said[0]) from error
        raise


def _unreadable(source: str, said: str) -> DataError:
    first = said.partition("\n")[0][:200]
    return DataError(f"score_input={source} cannot be read ({first}); check that it is whole, or write it again")
