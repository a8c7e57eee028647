"""Score a table with a registered version."""

from typing import Annotated

import mlflow
import mlflow.data
from rich.text import Text

from mlflow_llmops import names
from mlflow_llmops.errors import ModelError
from mlflow_llmops.scoring.table import check_tables, score_table, spark_session
from mlflow_llmops.steps._options import Model, Outcome
from mlflow_llmops.tracking.references import MLMODEL, download, task_of
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
    params["score.input_col"] = input_col
    with start_run("score", {names.VERB: "score", names.SOURCE_MODEL: model}, params) as run:
        check_tables(score_input, score_output, input_col)
        folder = download(model)
        if not (folder / MLMODEL).is_file():
            raise ModelError(
                f"model={model}: no MLflow model lies there; give models:/name/3, models:/name@alias or so"
            )
        task = task_of(folder)
        scored = score_table(spark_session(master), str(folder), score_input, score_output, input_col, task)
        rate = scored.rows / scored.seconds
        mlflow.log_metrics({names.SCORED_ROWS: scored.rows, names.SCORED_ROWS_PER_S: rate})
    said = (
        f"{scored.rows:,} rows scored with {model} into {scored.output}, {rate:,.0f} rows/s (the job's start included)"
    )
    return Outcome(run.info.run_id, (Text(said),), {"scored": scored})
