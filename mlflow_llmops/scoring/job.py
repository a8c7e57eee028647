"""`score(df, model_uri, ...)`: a column of texts through a registered version, a bad row costing one row."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from typing import Any

import pyarrow as pa
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql
from pyspark.sql.types import StringType, StructField, StructType

from mlflow_llmops.errors import ConfigError, DataError
from mlflow_llmops.scoring.check import check_columns, input_columns
from mlflow_llmops.scoring.checkpoint import Checkpoint, text_hash
from mlflow_llmops.scoring.failures import told
from mlflow_llmops.scoring.fingerprint import fingerprint_of
from mlflow_llmops.scoring.limits import Limits, limits_of
from mlflow_llmops.scoring.model import ResolvedModel, check_params, resolve
from mlflow_llmops.scoring.options import Options
from mlflow_llmops.scoring.output import absolute
from mlflow_llmops.scoring.progress import counters_of, shown
from mlflow_llmops.scoring.ship import Shipped, ship
from mlflow_llmops.scoring.worker import META, Counters, Work, checked_schema, run

PREDICTED = ("prediction", "error", "meta")
"""What the three columns are called inside; those of the input are numbered, so that their names may be anything."""
TASKS_PER_SLOT = 4
WITHOUT_A_WORD = 32
"""Tasks of a job whose cluster does not say how many it can run at once."""


def score(df: DataFrame, model_uri: str, **options: Any) -> DataFrame:
    """`df` with the columns `prediction`, typed by the model's signature, `prediction_error` and `prediction_meta`.

    Options are the fields of `mlflow_llmops.scoring.options.Options`. Nothing is scored before an action asks for it,
    except with `checkpoint`: then the job runs to its end here and the result is read from there. Without one, every
    action scores again, and Spark's own `orderBy` does so twice: write the result first. The version is fixed here in
    both cases. A null text gets a null and no error.

    Raises DataError for a column that is not there or holds something else and for an id that is not unique,
    ModelError for a model that takes no text, ConfigError for an option.
    """
    if not hasattr(df, "sparkSession"):
        raise DataError(
            f"df: {type(df).__name__} of {type(df).__module__} is no table of Spark's; spark.createDataFrame makes one"
        )
    settings = Options(**options)
    if df.isStreaming and (settings.id_col or settings.dedupe or settings.limited):
        raise DataError("df: a stream has no end to look at first; score each of its batches in foreachBatch")
    if settings.max_error_rate < 1 and not settings.checkpoint:
        raise ConfigError(
            "max_error_rate: the share is known when the last row is done; give a checkpoint, or use the score step"
        )
    check_frame(df, settings)
    job = Job(df, resolve(model_uri), settings)
    return job.named(job.finished() if settings.checkpoint else job.predicted(job.frame))


def check_frame(df: DataFrame, options: Options, source: str = "the table") -> None:
    """Raises DataError where `df` has not the columns that `options` name, or has those that scoring adds."""
    types = {each.name: _type_name(each) for each in df.schema}
    check_columns(source, types, options.input_col, options.added, options.id_col)
    if len(types) != len(df.columns):
        twice = next(name for name in types if df.columns.count(name) > 1)
        raise DataError(f"{source} has two columns {twice}; rename one")
    checked_schema(df.schema)


@dataclass
class Job:
    """A checked table and what is done with it."""

    df: DataFrame
    model: ResolvedModel
    options: Options
    counters: Counters | None = None
    total: int = 0
    before: int = 0
    """Rows that an earlier round finished."""
    frame: DataFrame = field(init=False)
    """The table with its columns numbered."""

    def __post_init__(self) -> None:
        check_params(self.model, self.options.params)
        self.frame = self.df.toDF(*(f"c{i}" for i in range(len(self.df.columns))))
        self.inputs = self._inputs()
        if len(self.inputs) > 1:
            given = [sql.col(place).alias(name) for name, place in self.inputs.items()]
            nothing = reduce(and_, (sql.col(place).isNull() for place in self.inputs.values()))
            self.frame = self.frame.withColumn(self.text, sql.when(~nothing, sql.to_json(sql.struct(*given))))
        self.spark: SparkSession = self.df.sparkSession
        if self.options.id_col:
            self.total = self._check_ids()
        context = getattr(self.spark, "sparkContext", None)
        self.slots: int | None = None if context is None else context.defaultParallelism
        self.shipped: Shipped = ship(self.spark, self.model)

    @property
    def text(self) -> str:
        """One column, or one more behind all others: an object of several, as JSON."""
        return next(iter(self.inputs.values())) if len(self.inputs) == 1 else f"c{len(self.df.columns)}"

    @property
    def id(self) -> str | None:
        return f"c{self.df.columns.index(self.options.id_col)}" if self.options.id_col else None

    @property
    def dedupe(self) -> bool:
        return self.model.asks_endpoint if self.options.dedupe is None else self.options.dedupe

    @property
    def limits(self) -> Limits | None:
        if not self.options.limited:
            return None
        return limits_of(self.options.concurrency, self.options.requests_per_second, self.slots)

    def count(self) -> int:
        """Rows of the table, once."""
        if not self.total:
            self.total = self.df.count()
        return self.total

    def named(self, scored: DataFrame) -> DataFrame:
        """With the columns' own names again."""
        scored = scored.drop(self.text) if len(self.inputs) > 1 else scored
        names = [*self.df.columns, self.options.output_col, self.options.error_col, self.options.meta_col]
        shown = scored.toDF(*names)
        left_out = self.options.left_out
        return shown.drop(left_out) if left_out else shown

    def predicted(self, frame: DataFrame, tasks: int | None = None) -> DataFrame:
        """`frame` with the three columns, in as many tasks as are told."""
        limits = self.limits
        tasks = limits.tasks if limits else tasks
        if self.dedupe:
            tasks = tasks or (self.slots or WITHOUT_A_WORD // TASKS_PER_SLOT) * TASKS_PER_SLOT
            # equal texts in one task and next to each other: it needs to remember no more than a batch
            frame = frame.repartition(tasks, self.text).sortWithinPartitions(self.text)
        elif tasks:
            frame = frame.repartition(tasks)
        work, counters = self._work(limits), self.counters

        def score_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return run(batches, work, counters)

        return frame.mapInArrow(score_batches, self._schema())

    def finished(self) -> DataFrame:
        """Score what the checkpoint does not have, and give every row with its result.

        Raises DataError where more rows failed than `max_error_rate` allows.
        """
        checkpoint, id_ = Checkpoint(self.spark, absolute(str(self.options.checkpoint))), str(self.id)
        id_type = self.frame.schema[id_].dataType.simpleString()
        with checkpoint.reading():
            number = checkpoint.open(fingerprint_of(self.model, self.options, id_type), self.options.resume)
            left = checkpoint.pending(self.frame, id_, self.text, self.options.retry_failed).count()
        self.before = self.count() - left
        self.counters = self.counters or counters_of(self.spark)
        with told(), shown(self.counters, self.total, self.before):
            waves, tasks = self._waves(left)
            for wave in range(waves):
                pending = checkpoint.pending(self.frame, id_, self.text, self.options.retry_failed)
                if waves > 1:
                    pending = pending.where(sql.pmod(text_hash(sql.col(self.text)), sql.lit(waves)) == wave)
                checkpoint.append(self.predicted(pending, tasks), id_, self.text, number)
        results = checkpoint.results()
        if results is None:
            return self.predicted(self.frame.limit(0))
        result = results.toDF("done_id", "done_text", *PREDICTED)
        same = (sql.col(id_) == sql.col("done_id")) & (text_hash(sql.col(self.text)) == sql.col("done_text"))
        joined = self.frame.join(result, same, "left").drop("done_id", "done_text")
        self._check_rate(joined)
        return joined

    def check_rate(self, rows: int, errors: int, kept_in: str) -> None:
        """Raises DataError where more rows failed than `max_error_rate` allows."""
        if errors > self.options.max_error_rate * rows:
            raise DataError(
                f"max_error_rate={self.options.max_error_rate}: {errors:,} of {rows:,} rows failed; {kept_in}"
            )

    def _check_rate(self, joined: DataFrame) -> None:
        if self.options.max_error_rate < 1:
            errors = joined.where(sql.col("error").isNotNull()).count()
            kept = f"they are in checkpoint={self.options.checkpoint}: mend them, then resume with retry_failed=true"
            self.check_rate(self.total, errors, kept)

    def _waves(self, left: int) -> tuple[int, int]:
        """How many jobs after each other, and tasks of each. Limits bound the tasks at once, so that there a job is a
        wave; else one job has as many tasks as it takes."""
        wanted = max(1, math.ceil(left / self.options.checkpoint_rows)) if left else 0
        if self.limits is None:
            return min(wanted, 1), max(wanted, self.slots or 1)
        return math.ceil(wanted / self.limits.tasks), self.limits.tasks

    def _work(self, limits: Limits | None) -> Work:
        rate = self.options.max_error_rate
        return Work(
            shipped=self.shipped,
            version=self.model.version,
            columns=self.model.columns,
            result=self.model.result,
            tells_errors=self.model.tells_errors,
            params=dict(self.options.params),
            text=int(self.text.removeprefix("c")),
            id=self.df.columns.index(self.options.id_col) if self.options.id_col else None,
            raises=self.options.on_error == "raise",
            max_errors=None if rate == 1 else math.floor(rate * self.count()),
            limits=limits,
        )

    def _inputs(self) -> dict[str, str]:
        """From the model's inputs to the frame's columns. Raises DataError where they do not fit."""
        mine, have = self.model.columns, self.df.columns
        given = input_columns(self.options.input_col, have)
        if len(mine) == len(given) == 1:
            return {mine[0]: f"c{have.index(given[0])}"}
        if sorted(mine) != sorted(given):
            wanted = (
                f"the columns {', '.join(mine)}: give input_col={','.join(mine)}" if len(mine) > 1 else "one column"
            )
            raise DataError(f"input_col={self.options.input_col}: {self.model.reference} takes {wanted}")
        return {name: f"c{have.index(name)}" for name in mine}

    def _schema(self) -> StructType:
        added: Mapping[str, Any] = dict(zip(PREDICTED, (self.model.result, StringType(), META), strict=True))
        before = [StructField(each.name, each.dataType, True) for each in self.frame.schema]
        return StructType([*before, *(StructField(name, type_, True) for name, type_ in added.items())])

    def _check_ids(self) -> int:
        """The number of rows. Raises DataError, naming some, for ids that are not unique, not there, or of a type that
        knows no equality."""
        id_ = sql.col(str(self.id))
        try:
            self.frame.where(id_ == id_).schema  # noqa: B018 - Spark Connect looks only now
        except AnalysisException as error:
            held = self.frame.schema[str(self.id)].dataType.simpleString()
            raise DataError(
                f"id_col={self.options.id_col}: this column holds {held}, which Spark cannot compare; name a column of "
                "texts or numbers"
            ) from error
        counts = self.frame.groupBy(id_.alias("id")).count()
        found = counts.agg(
            sql.sum("count"), sql.max("count"), sql.max(sql.when(sql.col("id").isNull(), sql.col("count")))
        ).first()
        rows, most, nulls = found if found is not None else (0, 0, 0)
        if nulls:
            raise DataError(f"id_col={self.options.id_col}: {nulls:,} rows have no id; leave them out, or number them")
        if (most or 0) > 1:
            twice = [str(row[0]) for row in counts.where("count > 1").orderBy(sql.desc("count")).limit(3).collect()]
            raise DataError(
                f"id_col={self.options.id_col}: ids must be unique, and {', '.join(twice)} stand in several rows; name "
                "another column, or leave the doubles out"
            )
        return int(rows or 0)


def _type_name(each: StructField) -> str:
    return "string" if isinstance(each.dataType, StringType) else each.dataType.simpleString()
