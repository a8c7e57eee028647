"""Registered versions through MLflow's own `spark_udf`."""

import mlflow
import pandas as pd
import pytest

from mlflow_llmops.errors import DataError
from mlflow_llmops.flavors import exported_text, text
from mlflow_llmops.scoring.table import read_table, score_table, spark_session

pytestmark = pytest.mark.spark


@pytest.fixture(scope="session")
def spark():
    session = spark_session("local[2]")
    yield session
    session.stop()


@pytest.fixture
def table(tmp_path, tiny_texts):
    frame = pd.DataFrame({"id": range(len(tiny_texts.test)), "body": tiny_texts.test.texts})
    for suffix, write in {"parquet": frame.to_parquet, "csv": lambda p: frame.to_csv(p, index=False)}.items():
        write(tmp_path / f"in.{suffix}")
    frame.to_json(tmp_path / "in.jsonl", orient="records", lines=True)
    return tmp_path


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_every_row_gets_the_answer_that_the_model_gives_without_spark(spark, store, table, tiny_exported, suffix):
    with mlflow.start_run():
        uri = exported_text.log_model(tiny_exported.folder).model_uri
    done = score_table(spark, uri, str(table / f"in.{suffix}"), str(table / "out"), "body")
    scored = pd.read_parquet(table / "out").sort_values("id", key=lambda ids: ids.astype(int))
    expected = mlflow.pyfunc.load_model(uri).predict(scored["body"])
    assert done.rows == len(scored) == 120
    assert [row["label"] for row in scored["prediction"]] == list(expected["label"])


def test_a_version_of_the_other_flavor_is_a_drop_in(spark, store, table, tiny_model, tiny_exported):
    with mlflow.start_run():
        uris = [exported_text.log_model(tiny_exported.folder).model_uri, text.log_model(tiny_model, "model").model_uri]
    answers = []
    for i, uri in enumerate(uris):
        score_table(spark, uri, str(table / "in.parquet"), str(table / f"out{i}"), "body")
        rows = pd.read_parquet(table / f"out{i}").sort_values("id")["prediction"]
        answers.append([(row["label"], round(row["score"], 3)) for row in rows])
    assert [label for label, _ in answers[0]] == [label for label, _ in answers[1]]


def test_what_is_missing_is_named(spark, store, table):
    with pytest.raises(DataError, match="input_col=text: .* it has: id, body"):
        score_table(spark, "models:/x/1", str(table / "in.parquet"), str(table / "out"), "text")
    with pytest.raises(DataError, match="score_input=nowhere.parquet: there is no such file"):
        score_table(spark, "models:/x/1", "nowhere.parquet", str(table / "out"))
    with pytest.raises(DataError, match="give a .parquet, .csv, .jsonl file"):
        score_table(spark, "models:/x/1", str(table), str(table / "out"))


def test_an_output_that_spark_did_not_write_is_kept(spark, store, table):
    (table / "mine").mkdir()
    (table / "mine" / "precious.txt").write_text("keep me")
    for output in ("mine", "in.csv", "."):
        with pytest.raises(DataError, match="score_output="):
            score_table(spark, "models:/x/1", str(table / "in.parquet"), str(table / output), "body")
    with pytest.raises(DataError, match="score_output="):
        score_table(spark, "models:/x/1", str(table / "in.parquet"), str(table / "in.parquet"), "body")
    assert (table / "mine" / "precious.txt").read_text() == "keep me"
    assert len(pd.read_parquet(table / "in.parquet")) == 120


def test_quotes_and_commas_are_read_as_pandas_reads_them(spark, tmp_path):
    frame = pd.DataFrame({"text": ['he said "cat, dog" now', 'say "bus", ok', "two\nlines"]})
    frame.to_csv(tmp_path / "quoted.csv", index=False)
    read = read_table(spark, str(tmp_path / "quoted.csv")).toPandas()
    assert sorted(read["text"]) == sorted(frame["text"])
