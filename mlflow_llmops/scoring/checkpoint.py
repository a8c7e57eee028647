"""Finished rows of a job that may die: keyed by id and text, under the fingerprint of the job that made them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sql

from mlflow_llmops.errors import DataError
from mlflow_llmops.scoring.fingerprint import Fingerprint
from mlflow_llmops.scoring.output import readable
from mlflow_llmops.scoring.said import of_the_disk, one_line

ID, TEXT_HASH, ROUND = "id", "text", "round"
"""Of the rows that are kept. A row whose text has changed since is another row."""
KEPT = ("prediction", "error", "meta")
BROKEN = re.compile(r"FAILED_READ_FILE[^\n]*?reading file (\S*?/rows/(\S+?\.parquet))")
"""How Spark names a file that it cannot read."""
# A task's file is in its place when the task is done, not when the whole job is: that is what survives a kill.
COMMITTED_AT_ONCE = {"mapreduce.fileoutputcommitter.algorithm.version": "2"}


@dataclass(frozen=True)
class Checkpoint:
    """A folder that Spark can write: any file system, shared by the workers."""

    spark: SparkSession
    folder: str

    def open(self, fingerprint: Fingerprint, resume: bool) -> int:
        """The number of this round: 0 in a new one. Raises DataError for a folder that is in use, or of another job."""
        stored = self._fingerprint()
        if stored is None:
            rows = self.spark.createDataFrame([(fingerprint.write(),)], "value string")
            try:
                rows.coalesce(1).write.mode("overwrite").text(f"{self.folder}/fingerprint")
            except (PySparkException, Py4JJavaError) as error:
                said = of_the_disk(error) or one_line(str(error))[:200]
                raise DataError(
                    f"checkpoint={self.folder} cannot be written ({said}); "
                    "name a folder that the driver and the workers can write"
                ) from error
            return 0
        fingerprint.check(self.folder, stored)
        if not resume:
            raise DataError(
                f"checkpoint={self.folder} holds an earlier job; give resume=true to go on with it, or remove it"
            )
        rows_so_far = self._rows()
        last = rows_so_far.agg(sql.max(ROUND)).first() if rows_so_far is not None else None
        return 0 if last is None or last[0] is None else int(last[0]) + 1

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Raises DataError, with the next step, where one of its own files is broken."""
        try:
            yield
        except (PySparkException, Py4JJavaError) as error:
            broken = next((name for place, name in BROKEN.findall(str(error)) if self.folder in unquote(place)), None)
            if broken is None:
                raise
            raise DataError(
                f"checkpoint={self.folder}: {broken} in its rows cannot be read; remove that file, and its rows are "
                "scored again"
            ) from error

    def pending(self, frame: DataFrame, id_: str, text: str, retry_failed: bool) -> DataFrame:
        """The rows of `frame` that have no result here, or, where they are to be tried again, an error."""
        done = self.results()
        if done is None:
            return frame
        if retry_failed:
            done = done.where(sql.col("error").isNull())
        done = done.select(sql.col(ID).alias("done_id"), sql.col(TEXT_HASH).alias("done_text"))
        # by name: on Spark Connect a column of a frame is no longer found once that has been planned again
        same = (sql.col(id_) == sql.col("done_id")) & (text_hash(sql.col(text)) == sql.col("done_text"))
        return frame.join(done, same, "left_anti")

    def append(self, scored: DataFrame, id_: str, text: str, number: int) -> None:
        """Keep rows with a prediction, each task's as soon as it is done."""
        kept = scored.select(
            sql.col(id_).alias(ID),
            text_hash(sql.col(text)).alias(TEXT_HASH),
            sql.lit(number).alias(ROUND),
            *KEPT,
        )
        kept.write.mode("append").options(**COMMITTED_AT_ONCE).parquet(f"{self.folder}/rows")

    def results(self) -> DataFrame | None:
        """The newest result of each row; None where there is none yet."""
        rows = self._rows()
        if rows is None:
            return None
        newest = sql.max_by(sql.struct(*KEPT), sql.col(ROUND)).alias("newest")
        return rows.groupBy(ID, TEXT_HASH).agg(newest).select(ID, TEXT_HASH, *(f"newest.{name}" for name in KEPT))

    def _rows(self) -> DataFrame | None:
        try:
            rows = self.spark.read.parquet(readable(f"{self.folder}/rows"))
            return rows if rows.columns else None  # Spark Connect looks only now
        except AnalysisException:  # no such folder, or no file in it
            return None

    def _fingerprint(self) -> str | None:
        try:
            first = self.spark.read.text(readable(f"{self.folder}/fingerprint"), wholetext=True).first()
        except AnalysisException:
            return None
        return None if first is None else str(first[0]).strip()


def text_hash(text: Column) -> Column:
    """64 bits; never null, so that it can be compared."""
    return sql.xxhash64(text)
