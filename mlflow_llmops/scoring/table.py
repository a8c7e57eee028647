"""Score a table of the disk or the catalogue into another one."""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as sql

from mlflow_llmops.errors import DataError
from mlflow_llmops.scoring.check import DELTA, READERS, TABLE, check_checkpoint, check_tables, unreadable
from mlflow_llmops.scoring.failures import told
from mlflow_llmops.scoring.job import Job, check_frame
from mlflow_llmops.scoring.model import ResolvedModel, resolve
from mlflow_llmops.scoring.options import Options
from mlflow_llmops.scoring.output import absolute, check_table, readable, without_delta, write
from mlflow_llmops.scoring.progress import counters_of, shown
from mlflow_llmops.scoring.said import of_the_disk, one_line

UNREADABLE = re.compile(
    r"\[(?:PATH_NOT_FOUND|UNABLE_TO_INFER_SCHEMA|FAILED_READ_FILE|COLUMN_ALREADY_EXISTS|PARQUET_TYPE_\w+)\b.*"
)
"""How Spark begins to say what is wrong with a file, and not with us."""
LOCAL = "local[*, 4]"
"""A task whose worker dies is tried again, as on a cluster."""
SUBMITTED = "PYSPARK_GATEWAY_PORT"
"""spark-submit sets it for its driver."""


@dataclass(frozen=True)
class Scored:
    """What a scoring job did."""

    rows: int
    errors: int
    scored: int
    """Rows of this time; the others were in the checkpoint."""
    seconds: float
    output: str
    model: ResolvedModel

    @property
    def rows_per_s(self) -> float:
        return self.scored / self.seconds


def spark_session(master: str = "") -> SparkSession:
    """The active session, or a new one on `master`, or spark-submit's; all cores of this machine where nothing says
    otherwise."""
    # The workers must be this Python: PATH may have another one first.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("mlflow-llmops score")
    builder = builder.config("spark.ui.enabled", "false").config("spark.ui.showConsoleProgress", "false")
    if master or SUBMITTED not in os.environ:
        builder = builder.master(master or os.environ.get("MASTER", LOCAL))
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def score_table(
    spark: SparkSession,
    model: str | ResolvedModel,
    source: str,
    output: str,
    input_col: str = "text",
    overwrite: bool = False,
    **options: Any,
) -> Scored:
    """Read `source`, add the columns that `mlflow_llmops.scoring.score` adds, and write `output`.

    Both are a file or folder of Parquet, CSV or JSONL by its suffix (an output without one: Parquet), `table:name` or
    `delta:folder`. Options are those of `score`.

    Raises DataError for a file or a column that is not there or holds something else, and where too many rows failed.
    """
    settings = Options(input_col=input_col, **options)
    check_tables(source, output, input_col, settings.added, settings.id_col, overwrite)
    check_checkpoint(settings.checkpoint, source, output)
    with _reading(source):
        frame = read_table(spark, source)
        check_frame(frame, settings, source)
        check_table(spark, output, overwrite)
        found = model if isinstance(model, ResolvedModel) else resolve(model)
        start = time.perf_counter()
        job = Job(frame, found, settings, counters_of(spark))
        seen = Observation()
        wanted = [sql.count(sql.lit(1)).alias("rows"), sql.count("error").alias("errors")]
        if settings.checkpoint:
            finished = job.finished()
            write(job.named(finished.observe(seen, *wanted)), output, overwrite)
        else:
            scored = job.predicted(job.frame).observe(seen, *wanted)
            with told(), shown(job.counters, job.count()):
                write(job.named(scored), output, overwrite)
        seconds = time.perf_counter() - start
    counted = seen.get
    rows, errors = int(counted.get("rows", 0)), int(counted.get("errors", 0))
    job.check_rate(rows, errors, f"they are in {output}, with their errors")
    return Scored(rows, errors, rows - job.before, seconds, output, found)


def read_table(spark: SparkSession, source: str) -> DataFrame:
    """A Parquet, CSV or JSONL file or folder, a table of the catalogue, or a folder of Delta Lake.

    Raises DataError where it is not there, broken or of no such type.
    """
    if source.startswith(TABLE):
        try:
            return spark.table(source.removeprefix(TABLE))
        except AnalysisException as error:
            raise DataError(f"score_input={source}: the catalogue has no such table; check its name") from error
    if source.startswith(DELTA):
        try:
            return spark.read.format("delta").load(absolute(source.removeprefix(DELTA)))
        except (PySparkException, Py4JJavaError) as error:
            without_delta("score_input", source, error)
            said = one_line(str(error))[:200]
            raise DataError(f"score_input={source}: no Delta table lies there ({said}); check the path") from error
    kind = READERS.get(Path(source).suffix.lower())
    if kind is None:
        raise DataError(f"score_input={source}: give a {', '.join(READERS)} file, {TABLE}name or {DELTA}folder")
    reader = spark.read.option("header", "true").option("multiLine", str(kind == "csv").lower())
    reader = reader.option("escape", '"')  # a quote inside a field is doubled, as pandas and spreadsheets write it
    with _reading(source):
        return reader.format(kind).load(readable(source))


@contextmanager
def _reading(source: str) -> Iterator[None]:
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        if "TIMESTAMP(NANOS" in str(error):
            raise DataError(
                f"score_input={source} holds timestamps in nanoseconds, which Spark does not read; write it again in "
                "microseconds, as pandas does with to_parquet(..., coerce_timestamps='us')"
            ) from error
        if said := UNREADABLE.search(str(error)):
            raise unreadable(source, said[0]) from error
        if "UnsupportedFileSystemException" in str(error):
            raise unreadable(source, of_the_disk(error) or "") from error
        raise
