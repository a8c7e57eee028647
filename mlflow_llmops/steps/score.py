"""Score a table with a registered version."""

from typing import Annotated, Any, Literal

import mlflow
from annotated_types import Ge, Gt, Le
from mlflow.data.meta_dataset import MetaDataset
from mlflow.data.spark_dataset_source import SparkDatasetSource
from rich.text import Text

from mlflow_llmops import names
from mlflow_llmops.scoring.check import TABLE, check_checkpoint, check_tables
from mlflow_llmops.scoring.model import resolve
from mlflow_llmops.scoring.options import Options, read_params
from mlflow_llmops.scoring.table import Scored, score_table, spark_session
from mlflow_llmops.steps._options import Model, Outcome
from mlflow_llmops.tracking.run import start_run


def score(
    model: Model,
    score_input: Annotated[str, "Parquet, CSV or JSONL with the texts, table:name, or delta:folder"],
    score_output: Annotated[
        str, "folder of Parquet, or of CSV or JSONL by its suffix, table:name, or delta:folder, for the scored rows"
    ],
    input_col: Annotated[
        str, "the column that holds the texts; with commas between where a prompt names several"
    ] = "text",
    master: Annotated[str, "Spark master; empty: the active session's or all cores of this machine"] = "",
    output_col: Annotated[str, "the column for the predictions; its _error and _meta stand beside it"] = "prediction",
    id_col: Annotated[str | None, "a column that names each row; a checkpoint needs one"] = None,
    on_error: Annotated[
        Literal["column", "null", "raise"], "a row that fails has its error in a column, a null alone, or fails the job"
    ] = "column",
    max_error_rate: Annotated[float, "the job fails where a larger share of the rows did", Ge(0), Le(1)] = 1.0,
    checkpoint: Annotated[str | None, "folder that keeps finished rows, so that a job that died goes on"] = None,
    resume: Annotated[bool, "go on from the checkpoint; where there is none, begin it"] = False,
    retry_failed: Annotated[bool, "when resumed, score rows that failed again"] = False,
    checkpoint_rows: Annotated[int, "rows of a task with a checkpoint: so many are lost with it", Ge(1)] = 5000,
    dedupe: Annotated[
        bool | None, "score each distinct text once in the whole job; auto: where the model asks an endpoint"
    ] = None,
    concurrency: Annotated[int | None, "calls of the model at once, over the whole job, a row each", Ge(1)] = None,
    requests_per_second: Annotated[
        float | None, "calls of the model begun in a second, over the whole job, a row each", Gt(0)
    ] = None,
    params: Annotated[str | None, "params of the model's signature as JSON"] = None,
    overwrite: Annotated[bool, "replace an output that exists"] = False,
) -> Outcome:
    """Score a table with a registered version through Spark; a row that fails costs one row."""
    options: dict[str, Any] = {
        "output_col": output_col,
        "id_col": id_col,
        "on_error": on_error,
        "max_error_rate": max_error_rate,
        "checkpoint": checkpoint,
        "dedupe": dedupe,
        "concurrency": concurrency,
        "requests_per_second": requests_per_second,
    }
    asked = {"model": model, "input": score_input, "output": score_output, "input_col": input_col, "params": params}
    logged = {f"score.{name}": value for name, value in {**asked, **options}.items()}
    with start_run("score", {names.VERB: "score", names.SOURCE_MODEL: model}, logged) as run:
        options |= {"resume": resume, "retry_failed": retry_failed, "checkpoint_rows": checkpoint_rows}
        options |= {"params": read_params(params)}
        settings = Options(input_col=input_col, **options)
        check_tables(score_input, score_output, input_col, settings.added, id_col, overwrite)
        check_checkpoint(checkpoint, score_input, score_output)
        found = resolve(model)  # before Spark starts; the job has this version, wherever the alias goes
        mlflow.set_tags({names.SCORED_VERSION: found.version, names.SCORED_DIGEST: found.digest})
        scored = score_table(spark_session(master), found, score_input, score_output, input_col, overwrite, **options)
        _log(scored, score_input)
    return Outcome(run.info.run_id, (Text(_said(scored, model)),), {"scored": scored})


def _log(scored: Scored, source: str) -> None:
    metrics = {names.SCORED_ROWS: scored.rows, names.SCORED_ERRORS: scored.errors}
    mlflow.log_metrics({**metrics, names.SCORED_ROWS_PER_S: scored.rows_per_s})
    for place, context in ((source, "scored"), (scored.output, "predictions")):
        table = place.removeprefix(TABLE) if place.startswith(TABLE) else None
        described = SparkDatasetSource(table_name=table) if table else SparkDatasetSource(path=place)
        dataset = MetaDataset(described, name=context)  # type: ignore[abstract]  # it is what MLflow documents
        mlflow.log_input(dataset, context=context)


def _said(scored: Scored, model: str) -> str:
    version = f" (version {scored.model.version})" if scored.model.uri != model else ""
    failed = f", {scored.errors:,} of them failed" if scored.errors else ""
    before = f", {scored.rows - scored.scored:,} of them before" if scored.rows > scored.scored else ""
    return (
        f"{scored.rows:,} rows scored with {model}{version} into {scored.output}{failed}{before}, "
        f"{scored.rows_per_s:,.0f} rows/s (the job's start included)"
    )
