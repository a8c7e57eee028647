"""Score a table with a registered version through MLflow's own `spark_udf`."""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.pyfunc
from mlflow.types.schema import Array
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql
from pyspark.sql.types import ArrayType, DataType, StringType, StructField, StructType

from mlflow_llmops.errors import DataError, ModelError
from mlflow_llmops.scoring.check import PREDICTION, READERS, TEXT, check_column, check_tables, unreadable
from mlflow_llmops.tracking.signature import RESULT_TYPES

UNREADABLE = re.compile(r"\[(?:PATH_NOT_FOUND|UNABLE_TO_INFER_SCHEMA|FAILED_READ_FILE|COLUMN_ALREADY_EXISTS)\b.*")
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
        check_column(source, input_col, {name: _name_of(type_) for name, type_ in types.items()})
        with _unshipped():
            result = RESULT_TYPES.get(task) or _result_type(model_uri)
            predict = mlflow.pyfunc.spark_udf(spark, model_uri, result_type=result, env_manager="local")
        text = sql.col(f"`{input_col.replace('`', '``')}`")
        # A Python UDF runs on the rows that `when` leaves out too, and a null fails the whole batch of a torch model.
        prediction = sql.when(text.isNotNull(), predict(sql.coalesce(text, sql.lit(""))))
        start = time.perf_counter()
        frame.withColumn(PREDICTION, prediction).write.mode("overwrite").parquet(_absolute(output))
        seconds = time.perf_counter() - start
    return Scored(spark.read.parquet(_absolute(output)).count(), seconds, Path(output))


@contextmanager
def _unshipped() -> Iterator[None]:
    """MLflow puts the driver's OPENAI_* variables, the key with them, into the UDF that it ships: hide them meanwhile.
    Local workers have them from the environment that Spark was started in."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith("OPENAI_")}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _result_type(model_uri: str) -> DataType:
    """What the model's signature says that it gives."""
    signature = mlflow.models.get_model_info(model_uri).signature
    if signature is None or signature.outputs is None:
        raise ModelError(f"model={model_uri} has no signature of its outputs; log it with one")
    columns: list[Any] = signature.outputs.inputs
    if [column.name for column in columns] == [None]:
        return _spark_type(columns[0].type)
    return StructType([StructField(column.name, _spark_type(column.type)) for column in columns])


def _spark_type(type_: Any) -> DataType:
    """Of a scalar or of an array of them, which MLflow's own conversion does not know."""
    scalar: Any = type_.dtype if isinstance(type_, Array) else type_
    return ArrayType(scalar.to_spark()) if isinstance(type_, Array) else scalar.to_spark()


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


def _name_of(type_: DataType) -> str:
    return TEXT if isinstance(type_, StringType) else type_.simpleString()


@contextmanager
def _reading(source: str) -> Iterator[None]:
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        if said := UNREADABLE.search(str(error)):
            raise unreadable(source, said[0]) from error
        raise
