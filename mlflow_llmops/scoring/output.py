"""Where scored rows go: Parquet, CSV, JSONL, a table of the catalogue, Delta."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql
from pyspark.sql.types import ArrayType, MapType, StructType

from mlflow_llmops.errors import DataError
from mlflow_llmops.scoring.check import DELTA, TABLE, is_path
from mlflow_llmops.scoring.said import of_the_disk, one_line


def write(frame: DataFrame, output: str, overwrite: bool) -> None:
    """As `output` says: `table:name`, `delta:folder`, or a folder of Parquet, or of CSV or JSONL by its suffix.

    A folder without a scheme gets its place when it is whole: a job that fails leaves nothing, or what was there.

    Raises DataError, saying how to overwrite, for one that exists.
    """
    mode = "overwrite" if overwrite else "errorifexists"
    try:
        if output.startswith(TABLE):
            frame.write.mode(mode).saveAsTable(output.removeprefix(TABLE))
        elif output.startswith(DELTA):
            frame.write.format("delta").mode(mode).save(absolute(output.removeprefix(DELTA)))
        elif is_path(output):
            _whole(frame.sparkSession, output, overwrite, lambda place: _save(frame, output, place, "errorifexists"))
        else:
            _save(frame, output, output, mode)
    except AnalysisException as error:
        if "ALREADY_EXISTS" in (error.getCondition() or ""):
            raise exists(output) from error
        raise (_refused(output, error) if output.startswith(TABLE) else error) from error
    except Py4JJavaError as error:
        if (said := of_the_disk(error)) is None or is_path(output) or output.startswith((TABLE, DELTA)):
            raise
        raise DataError(f"score_output={output} cannot be written ({said}); check the address") from error


def check_table(spark: SparkSession, output: str, overwrite: bool) -> None:
    """Raises DataError for a table of the catalogue or of Delta that exists or that this session cannot write; other
    folders are looked at without Spark."""
    if output.startswith(TABLE):
        try:
            there = spark.catalog.tableExists(output.removeprefix(TABLE))
        except AnalysisException as error:
            raise _refused(output, error) from error
    elif output.startswith(DELTA):
        try:
            there = bool(spark.read.format("delta").load(absolute(output.removeprefix(DELTA))).columns)
        except (PySparkException, Py4JJavaError) as error:
            without_delta("score_output", output, error)
            there = False
    else:
        return
    if there and not overwrite:
        raise exists(output)


def exists(output: str) -> DataError:
    """The same words, whoever finds it."""
    return DataError(f"score_output={output} exists; give overwrite=true to replace it, or write elsewhere")


def without_delta(option: str, place: str, error: PySparkException | Py4JJavaError) -> None:
    """Raises DataError, saying what to do, where `error` means that the session has no Delta."""
    if "DATA_SOURCE_NOT_FOUND" in str(error):
        raise DataError(
            f"{option}={place}: this Spark session has no Delta; start it with io.delta:delta-spark among its packages"
        ) from error


def absolute(path: str) -> str:
    """Spark takes a relative path as seen from the folder that its JVM was started in, which may be another one."""
    return str(Path(path).absolute()) if is_path(path) else path


def readable(path: str) -> str:
    """The same for reading, where Spark would take brackets, braces and stars of a name for a pattern."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", absolute(path)) if is_path(path) else path


def _save(frame: DataFrame, output: str, place: str, mode: str) -> None:
    """Into `place`, in the format that the suffix of `output` names."""
    if output.lower().endswith(".csv"):
        # a quote is doubled, as pandas and spreadsheets read it
        _flat(frame).write.mode(mode).option("header", "true").option("escape", '"').csv(place)
    elif output.lower().endswith(".jsonl"):
        frame.write.mode(mode).option("ignoreNullFields", "false").json(place)
    else:
        frame.write.mode(mode).parquet(place)


def _whole(spark: SparkSession, output: str, overwrite: bool, save: Callable[[str], None]) -> None:
    """Written beside its place and moved there, by Hadoop's means: Spark may take a bare path for one of HDFS."""
    target = Path(output).resolve()
    beside = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    java: Any = spark.sparkContext._jvm
    fresh, place = (java.org.apache.hadoop.fs.Path(str(each)) for each in (beside, target))
    files = place.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    if not overwrite and files.exists(place) and len(files.listStatus(place)):
        raise exists(output)
    try:
        save(str(beside))
        files.delete(place, True)
        if not files.rename(fresh, place):
            raise DataError(f"score_output={output} cannot be moved to its place; is another job writing it?")
    finally:
        files.delete(fresh, True)


def _refused(output: str, error: AnalysisException) -> DataError:
    """A table that the catalogue does not take, in Spark's first words."""
    return DataError(f"score_output={output}: {one_line(str(error))[:200]}; name another table")


def _flat(frame: DataFrame) -> DataFrame:
    """CSV has no columns inside columns: they are written as JSON."""
    columns = []
    for each in frame.schema:
        column = frame[f"`{each.name.replace('`', '``')}`"]
        nested = isinstance(each.dataType, StructType | ArrayType | MapType)
        columns.append((sql.to_json(column) if nested else column).alias(each.name))
    return frame.select(*columns)
