"""What is wrong with a scoring job is told before Spark starts, and what it was asked is kept."""

import mlflow
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mlflow_llmops.errors import DataError, ModelError
from mlflow_llmops.flavors import exported_text, text
from mlflow_llmops.measure.generation import complete, prompts_of
from mlflow_llmops.registry.versions import register
from mlflow_llmops.steps.score import score


@pytest.fixture
def no_spark(monkeypatch):
    monkeypatch.setattr("mlflow_llmops.steps.score.spark_session", lambda *_: pytest.fail("Spark was started"))


@pytest.fixture
def table(store):
    pd.DataFrame({"body": ["oven and butter", None, "the boat"]}).to_parquet("in.parquet")
    return "in.parquet"


@pytest.mark.parametrize("model", ["models:/nobody/1", "models:/nobody@champion", "runs:/0123/model", "no/folder"])
def test_an_unknown_model_is_told_before_spark_starts(table, no_spark, model):
    with pytest.raises(ModelError, match=f"^model={model} "):
        score(model, table, "out", "body")


def test_a_folder_without_a_model_is_told_before_spark_starts(table, store, no_spark):
    (store / "empty").mkdir()
    with pytest.raises(ModelError, match="^model=empty: no MLflow model lies there"):
        score("empty", table, "out", "body")


def test_a_mistake_in_the_column_is_told_before_spark_starts(table, no_spark):
    with pytest.raises(DataError, match="^input_col=text: in.parquet has no such column; it has: body$"):
        score("models:/nobody/1", table, "out")


@pytest.mark.spark
def test_a_version_scores_and_the_run_says_what_it_was_asked(spark, table, tiny_exported):
    with mlflow.start_run():
        register(exported_text.log_model(tiny_exported.folder).model_uri, "m", {})
    outcome = score("models:/m/1", table, "out", "body")
    params = mlflow.get_run(outcome.run_id).data.params
    assert params["score.model"] == "models:/m/1"
    assert params["score.input_col"] == "body"
    scored = pd.read_parquet("out")
    assert [row is None for row in scored.sort_values("body")["prediction"]] == [False, False, True]


@pytest.fixture
def writer(spark, store, tiny_decoder):
    """Version 1 of a causal model."""
    with mlflow.start_run():
        register(text.log_model(tiny_decoder, "model").model_uri, "writer", {})
    return "models:/writer/1"


def completed(model, table: str, prompts: list) -> list:
    """What `score` gives each of `prompts`, in their order."""
    pd.DataFrame({"id": range(len(prompts)), "text": prompts}).to_parquet(table)
    score(model, table, "written")
    return pq.read_table("written").sort_by("id")["prediction"].to_pylist()


@pytest.mark.spark
def test_a_version_that_writes_completes_every_row(writer, tiny_decoder, tiny_texts):
    prompts = list(prompts_of(tiny_texts.test.texts, 5))
    expected = [completion.text for completion in complete(tiny_decoder, prompts)]
    assert completed(writer, "prompts.parquet", [*prompts, None]) == [*expected, None]


@pytest.mark.spark
def test_a_prompt_that_looks_like_something_else_is_a_text(writer, tiny_decoder):
    prompts = ["42", "", "{'text': 'the boat'}", "[1, 2]", "None", "the boat " * 100]
    expected = [completion.text for completion in complete(tiny_decoder, prompts)]
    assert completed(writer, "odd.parquet", [*prompts, None]) == [*expected, None]
