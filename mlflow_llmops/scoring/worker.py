"""What runs inside a Spark task: Arrow batches in, the same with predictions, errors and what they cost out."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql.pandas.types import to_arrow_schema, to_arrow_type
from pyspark.sql.types import DataType, StructType

from mlflow_llmops.errors import DataError
from mlflow_llmops.scoring.bisect import Answer, Budget, Predict, answers_of
from mlflow_llmops.scoring.limits import Limits, Pace
from mlflow_llmops.scoring.said import one_line
from mlflow_llmops.scoring.ship import Shipped, loaded
from mlflow_llmops.scoring.tokens import counter_of

META = StructType().add("version", "string").add("tokens", "long").add("attempts", "long").add("milliseconds", "double")
"""Of `<output_col>_meta`. Milliseconds are a row's share of the call that answered it."""
NOT_UTF8 = "the text is not valid UTF-8; write it again with the right encoding"
TOKENS = ("prompt_tokens", "completion_tokens")
"""Columns of an answer that say what it cost."""
BATCH = 10_000


@dataclass(frozen=True)
class Work:
    """All that travels to a task. It holds no key: a model reads that from its worker's environment."""

    shipped: Shipped
    version: str
    columns: tuple[str, ...]
    """Of the model; where there are several, a text is a JSON object of them."""
    result: DataType
    tells_errors: bool
    params: Mapping[str, Any]
    text: int
    """The position of the texts' column."""
    id: int | None
    raises: bool
    max_errors: int | None
    """A task with more of them fails the job."""
    limits: Limits | None


@dataclass(frozen=True)
class Counters:
    """Spark's accumulators for the progress bar; they count a row again whose task is tried again."""

    rows: Any
    errors: Any


class Task:
    """A model at work on the batches of one partition."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._model, folder = loaded(work.shipped)
        self._tokens = counter_of(folder)
        self._budget = Budget(BATCH)
        self._errors = 0
        self._before: dict[str, Answer] = {}
        context = TaskContext.get()
        share = work.limits.share(context.partitionId() if context else 0) if work.limits else None
        self._pace: Pace | None = share

    def added(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        """`batch` with the three columns behind its own, and how many of its rows failed.

        Raises DataError where the job was told not to take so many errors.
        """
        texts = _decoded(batch.column(self._work.text))
        distinct = list(dict.fromkeys(text for text in texts if isinstance(text, str)))
        answers = self._answers(distinct)
        tokens = dict(zip(distinct, self._tokens(distinct), strict=True))
        rows = [self._row(text, answers, tokens) for text in texts]
        failed = [i for i, (_, error, _) in enumerate(rows) if error is not None]
        self._check(batch, rows, failed)
        columns = [
            pa.array([value for value, _, _ in rows], type=to_arrow_type(self._work.result)),
            pa.array([error for _, error, _ in rows], type=pa.string()),
            pa.array([meta for _, _, meta in rows], type=to_arrow_type(META)),
        ]
        names = [*batch.schema.names, "prediction", "error", "meta"]
        return pa.RecordBatch.from_arrays([*batch.columns, *columns], names=names), len(failed)

    def _answers(self, distinct: Sequence[str]) -> dict[str, Answer]:
        """Of each; those of the batch before are known, since equal texts may go on in the next one."""
        known = {text: self._before[text] for text in distinct if text in self._before}
        new = [text for text in distinct if text not in known]
        self._before = known | dict(zip(new, self._asked(new), strict=True))
        return self._before

    def _asked(self, texts: Sequence[str]) -> list[Answer]:
        pace = self._pace
        if pace is None:
            return answers_of(self._predict, texts, self._budget)

        def in_turn(text: str) -> Answer:
            pace.wait()
            [answer] = answers_of(self._predict, [text], Budget(1))
            return answer

        with ThreadPoolExecutor(pace.threads) as pool:
            return list(pool.map(in_turn, texts))

    @property
    def _predict(self) -> Predict:
        work = self._work

        def predict(texts: Sequence[str]) -> list[Any]:
            frame = _frame(texts, work.columns)
            given = self._model.predict(frame, params=dict(work.params)) if work.params else self._model.predict(frame)
            # Arrow would find a value of another type when its whole batch has been scored
            return _checked(_rows(given, work.result), work.result)

        return predict

    def _row(
        self, text: str | bytes | None, answers: Mapping[str, Answer], tokens: Mapping[str, int | None]
    ) -> tuple[Any, str | None, dict[str, Any] | None]:
        if text is None:
            return None, None, None
        meta: dict[str, Any] = {"version": self._work.version, "attempts": 0}
        if isinstance(text, bytes):
            return None, NOT_UTF8, meta
        answer = answers[text]
        meta |= {"tokens": tokens[text], "attempts": answer.attempts, "milliseconds": answer.milliseconds}
        value, error = answer.value, answer.error
        if isinstance(value, dict) and self._work.tells_errors:
            spent = [value[name] for name in TOKENS if value.get(name) is not None]
            meta["tokens"] = int(sum(spent)) if spent else meta["tokens"]
            error = one_line(value["error"]) if value.get("error") else None
        return (value if error is None else None), error, meta

    def _check(self, batch: pa.RecordBatch, rows: Sequence[tuple[Any, str | None, Any]], failed: Sequence[int]) -> None:
        work = self._work
        self._errors += len(failed)
        if failed and work.raises:
            name = "" if work.id is None else f" with id {batch.column(work.id)[failed[0]].as_py()}"
            raise DataError(f"a row{name} failed: {rows[failed[0]][1]}; on_error=column keeps the rows that did not")
        if work.max_errors is not None and self._errors > work.max_errors:
            raise DataError(
                f"max_error_rate: more than {work.max_errors} rows failed, the last one with: {rows[failed[-1]][1]}"
            )


def run(batches: Iterator[pa.RecordBatch], work: Work, counters: Counters | None) -> Iterator[pa.RecordBatch]:
    """What `mapInArrow` calls, once a partition."""
    task: Task | None = None
    for batch in batches:
        if batch.num_rows:
            task = task or Task(work)  # an empty partition loads no model
            scored, failed = task.added(batch)
            if counters is not None:
                counters.rows.add(scored.num_rows)
                counters.errors.add(failed)
            yield scored


def _decoded(column: pa.Array) -> list[str | bytes | None]:
    """Texts, nulls, and bytes where they are no text: one such row would fail Arrow's own conversion of all."""
    try:
        texts: list[str | bytes | None] = column.to_pylist()
        return texts
    except UnicodeDecodeError:
        raw = column.cast(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()).to_pylist()
        return [value if value is None else _text_or_bytes(value) for value in raw]


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def _frame(texts: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    rows = [(text,) for text in texts] if len(columns) == 1 else [_values(text, columns) for text in texts]
    return pd.DataFrame(rows, columns=list(columns), dtype=object)


def _values(text: str, columns: Sequence[str]) -> tuple[str | None, ...]:
    """Of a JSON object, in which Spark leaves nulls out."""
    found = json.loads(text)
    return tuple(found.get(name) for name in columns)


def _rows(given: Any, result: DataType) -> list[Any]:
    """What a pyfunc gave as a value for each row: a dict where the signature has columns, else a scalar."""
    if not isinstance(result, StructType):
        column = given.iloc[:, 0] if isinstance(given, pd.DataFrame) else pd.Series(given)
        return _without_nan(column)
    frame = given if isinstance(given, pd.DataFrame) else pd.DataFrame(given)
    columns = [_without_nan(frame[name]) for name in result.names]
    return [dict(zip(result.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _without_nan(column: pd.Series) -> list[Any]:
    values = column.astype(object)
    return list(values.where(values.notna(), None))


def _checked(rows: list[Any], result: DataType) -> list[Any]:
    """Raises pyarrow's error where a value is none of the signature's type."""
    pa.array(rows, type=to_arrow_type(result))
    return rows


def checked_schema(schema: StructType) -> None:
    """Raises DataError for a column that Arrow cannot carry to Python."""
    from pyspark.errors import PySparkException

    for field in schema:
        try:
            # for its types alone: any zone, without which it would refuse timestamps
            to_arrow_schema(StructType([field]), timezone="UTC")
        except PySparkException as error:
            raise DataError(
                f"column {field.name} holds {field.dataType.simpleString()}, which Spark cannot hand to Python; drop "
                "it before scoring"
            ) from error
