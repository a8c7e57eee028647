"""Where scored rows go: Parquet, CSV, JSONL, a table of the catalogue, Delta."""

from pathlib import Path

from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql
from pyspark.sql.types import ArrayType, MapType, StructType

from mlflow_llmops.errors import DataError
from mlflow_llmops.scoring.check import DELTA, TABLE, is_path


def write(frame: DataFrame, output: str, overwrite: bool) -> None:
    """As `output` says: `table:name`, `delta:folder`, or a folder of Parquet, or of CSV or JSONL by its suffix.

    Raises DataError, saying how to overwrite, for one that exists.
    """
    mode = "overwrite" if overwrite else "errorifexists"
    try:
        if output.startswith(TABLE):
            frame.write.mode(mode).saveAsTable(output.removeprefix(TABLE))
        elif output.startswith(DELTA):
            frame.write.format("delta").mode(mode).save(absolute(output.removeprefix(DELTA)))
        elif output.endswith(".csv"):
            # a quote is doubled, as pandas and spreadsheets read it
            _flat(frame).write.mode(mode).option("header", "true").option("escape", '"').csv(absolute(output))
        elif output.endswith(".jsonl"):
            frame.write.mode(mode).option("ignoreNullFields", "false").json(absolute(output))
        else:
            frame.write.mode(mode).parquet(absolute(output))
    except AnalysisException as error:
        if "ALREADY_EXISTS" in (error.getCondition() or ""):
            raise exists(output) from error
        raise without_delta("score_output", output, error) from error


def check_table(spark: SparkSession, output: str, overwrite: bool) -> None:
    """Raises DataError for a table of the catalogue that exists; folders are looked at without Spark."""
    if output.startswith(TABLE) and not overwrite and spark.catalog.tableExists(output.removeprefix(TABLE)):
        raise exists(output)


def exists(output: str) -> DataError:
    """The same words, whoever finds it."""
    return DataError(f"score_output={output} exists; give overwrite=true to replace it, or write elsewhere")


def without_delta(option: str, place: str, error: PySparkException) -> PySparkException | DataError:
    """What to do where the session has no Delta; any other error as it is."""
    if place.startswith(DELTA) and "DATA_SOURCE_NOT_FOUND" in str(error):
        return DataError(
            f"{option}={place}: this Spark session has no Delta; start it with io.delta:delta-spark among its packages"
        )
    return error


def absolute(path: str) -> str:
    """Spark takes a relative path as seen from the folder that its JVM was started in, which may be another one."""
    return str(Path(path).absolute()) if is_path(path) else path


def _flat(frame: DataFrame) -> DataFrame:
    """CSV has no columns inside columns: they are written as JSON."""
    columns = []
    for each in frame.schema:
        column = frame[f"`{each.name.replace('`', '``')}`"]
        nested = isinstance(each.dataType, StructType | ArrayType | MapType)
        columns.append((sql.to_json(column) if nested else column).alias(each.name))
    return frame.select(*columns)
