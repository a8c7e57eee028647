"""Score a table with a registered version."""

from typing import Annotated

import mlflow
import mlflow.data
from rich.text import Text

from mlflow_llmops import names
from mlflow_llmops.scoring.table import score_table, spark_session
from mlflow_llmops.steps._options import Model, Outcome
from mlflow_llmops.tracking.run import start_run


def score(
    model: Model,
    score_input: Annotated[str, "Parquet, CSV or JSONL with the texts"],
    score_output: Annotated[str, "Parquet folder for the rows with their prediction; replaced where it exists"],
    input_col: Annotated[str, "the column that holds the texts"] = "text",
    master: Annotated[str, "Spark master; empty: the active session's or local[*]"] = "",
) -> Outcome:
    """Score a table with a registered version through MLflow's own Spark UDF."""
    params = {"score.model": model, "score.input": score_input, "score.output": score_output}
    with start_run("score", {names.VERB: "score", names.SOURCE_MODEL: model}, params) as run:
        scored = score_table(spark_session(master), model, score_input, score_output, input_col)
        rate = scored.rows / scored.seconds
        mlflow.log_metrics({names.SCORED_ROWS: scored.rows, names.SCORED_ROWS_PER_S: rate})
    said = (
        f"{scored.rows:,} rows scored with {model} into {scored.output}, {rate:,.0f} rows/s (the job's start included)"
    )
    return Outcome(run.info.run_id, (Text(said),), {"scored": scored})
