"""A prompt of several columns over a table: MLflow's own `spark_udf`, and the score step."""

import mlflow
import pandas as pd
import pytest
from pyspark.sql import functions as sql

from mlflow_llmops.errors import DataError
from mlflow_llmops.flavors import openai_chat
from mlflow_llmops.flavors._chat_settings import ChatSettings
from mlflow_llmops.scoring import score
from mlflow_llmops.scoring.table import score_table

ROWS = [
    *({"id": 1, "question": "why?", "context": 'so "it" is'}, {"id": 2, "question": "who, me?", "context": "für ö"}),
    *({"id": 3, "question": "why?", "context": 'so "it" is'}, {"id": 4, "question": "when?", "context": None}),
    {"id": 5, "question": None, "context": None},
]
SAID = ['answer to so "it" is > why?', "answer to für ö > who, me?", 'answer to so "it" is > why?', None, None]


@pytest.fixture
def asked(openai_server, tmp_path):
    settings = ChatSettings(
        "m", "{context} > {question}", openai_server.url, "LLMOPS_TEST_API_KEY", max_retries=0, remember=0
    )
    openai_chat.save_model(settings, tmp_path / "asked")
    return str(tmp_path / "asked")


@pytest.mark.spark
@pytest.mark.slow
def test_a_prompt_of_several_columns_scores_a_table(spark, asked, openai_server, tmp_path):
    pd.DataFrame(ROWS).to_parquet(tmp_path / "in.parquet")
    table = spark.read.parquet(str(tmp_path / "in.parquet"))
    udf = mlflow.pyfunc.spark_udf(spark, asked, result_type="struct<answer: string, error: string>")
    column = udf(sql.struct("question", "context"))
    stock = table.select("id", column.alias("one")).orderBy("id").collect()
    assert [row["one"]["answer"] for row in stock] == SAID
    assert [row["one"]["error"] for row in stock[2:]] == [None, *["the column context is null"] * 2]
    openai_server.seen.clear()
    given = {"input_col": "context, question", "id_col": "id"}
    scored = score_table(spark, asked, str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"), **given)
    rows = pd.read_parquet(tmp_path / "out.parquet").sort_values("id")
    assert rows.columns.tolist() == ["id", "question", "context", "prediction", "prediction_error", "prediction_meta"]
    assert [row and row["answer"] for row in rows["prediction"]] == SAID
    assert rows["prediction_error"].dropna().to_dict() == {rows.index[3]: "the column context is null"}
    assert (scored.rows, scored.errors) == (5, 1)
    assert len(openai_server.seen) == 2, "equal rows are asked once in the whole job"
    kept = {"checkpoint": str(tmp_path / "kept")}
    again = score(table, asked, **given, **kept).toPandas().sort_values("id")
    assert [row and row["answer"] for row in again["prediction"]] == SAID
    asked_before = len(openai_server.seen)
    score(table, asked, **given, **kept, resume=True).count()
    assert len(openai_server.seen) == asked_before
    for wrong in ("question", "question,id"):
        with pytest.raises(DataError, match=f"^input_col=.*{wrong[-2:]}"):
            score(table, asked, input_col=wrong)
    with pytest.raises(DataError, match="takes the columns context, question: give input_col=context,question"):
        score(table, asked, input_col="question")
    with pytest.raises(DataError, match="^input_col=nowhere: the table has no such column"):
        score(table, asked, input_col="question,nowhere")
