"""Score a table with a registered version through MLflow's own `spark_udf`."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import mlflow.pyfunc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql

from mlflow_llmops.errors import DataError
from mlflow_llmops.tracking.signature import RESULT_TYPES

READERS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json"}


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

    Raises DataError for a file or a column that is not there.
    """
    check_tables(source, output)
    frame = read_table(spark, source)
    if input_col not in frame.columns:
        raise DataError(f"input_col={input_col}: {source} has no such column; it has: {', '.join(frame.columns)}")
    predict = mlflow.pyfunc.spark_udf(spark, model_uri, result_type=RESULT_TYPES[task], env_manager="local")
    start = time.perf_counter()
    frame.withColumn("prediction", predict(sql.col(input_col))).write.mode("overwrite").parquet(output)
    seconds = time.perf_counter() - start
    return Scored(spark.read.parquet(output).count(), seconds, Path(output))


def check_tables(source: str, output: str) -> None:
    """Raises DataError for an input that is not there, and for an output that is no earlier result of ours."""
    if "://" in source or "://" in output:
        return
    given, target = Path(source).resolve(), Path(output).resolve()
    if not given.exists():
        raise DataError(f"score_input={source}: there is no such file; check the path (seen from {Path.cwd()})")
    if given.suffix.lower() not in READERS:
        raise DataError(f"score_input={source}: give a {', '.join(READERS)} file")
    if given == target or given in target.parents or target in given.parents:
        raise DataError(f"score_output={output} holds or lies in score_input={source}; write elsewhere")
    if target.is_file() or (target.is_dir() and any(target.iterdir()) and not (target / "_SUCCESS").exists()):
        raise DataError(f"score_output={output} exists and is no table that Spark wrote; remove it, or write elsewhere")


def read_table(spark: SparkSession, source: str) -> DataFrame:
    """A Parquet, CSV or JSONL file or folder. Raises DataError where it is not there or of no such type."""
    kind = READERS.get(Path(source).suffix.lower())
    if kind is None:
        raise DataError(f"score_input={source}: give a {', '.join(READERS)} file")
    reader = spark.read.option("header", "true").option("multiLine", str(kind == "csv").lower())
    reader = reader.option("escape", '"')  # a quote inside a field is doubled, as pandas and spreadsheets write it
    return reader.format(kind).load(source)
