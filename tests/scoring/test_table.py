"""Registered versions through MLflow's own `spark_udf`."""

import gzip
import os
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from mlflow_llmops.errors import DataError
from mlflow_llmops.flavors import _chains, exported_text, langchain_chain, text
from mlflow_llmops.flavors._chain_settings import ENCODER, INDEX, WRITER, ChainSettings
from mlflow_llmops.models.embedder import save_embedder
from mlflow_llmops.scoring.table import check_tables, read_table, score_table

pytestmark = pytest.mark.spark


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


@pytest.fixture
def uris(store, tiny_model, tiny_exported):
    with mlflow.start_run():
        exported = exported_text.log_model(tiny_exported.folder).model_uri
        return {"exported": exported, "torch": text.log_model(tiny_model, "model").model_uri}


def test_relative_paths_are_seen_from_here_and_not_from_where_spark_started(spark, uris, table):
    assert spark.sparkContext._jvm.System.getProperty("user.dir") != str(Path.cwd())
    score_table(spark, uris["exported"], "in.parquet", "here/out", "body")
    assert len(pd.read_parquet(table / "here" / "out")) == 120


@pytest.mark.parametrize("flavor", ["exported", "torch"])
def test_a_null_text_gets_a_null_prediction_and_costs_no_other_row(spark, uris, table, flavor):
    given = pd.DataFrame({"id": range(4), "body": ["oven and butter", None, "", "the boat in the harbour"]})
    given.to_parquet(table / "holes.parquet")
    score_table(spark, uris[flavor], str(table / "holes.parquet"), str(table / "out"), "body")
    scored = pd.read_parquet(table / "out").sort_values("id")
    assert [row is None for row in scored["prediction"]] == [False, True, False, False]
    assert scored["body"].isna().tolist() == [False, True, False, False]


@pytest.mark.parametrize("column", ["a.b", "a`b", "a b", "`", "id.x"])
def test_a_column_may_have_any_name(spark, uris, table, column):
    pd.DataFrame({"id": [1], column: ["oven and butter"]}).to_parquet(table / "named.parquet")
    score_table(spark, uris["exported"], str(table / "named.parquet"), str(table / "out"), column)
    assert pd.read_parquet(table / "out")["prediction"][0]["label"]


def write(frame: pd.DataFrame, path: Path) -> None:
    """As its suffix says."""
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_typing_mistake_in_the_column_is_told_without_spark(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("pyspark.sql.SparkSession.builder", None)
    source, output = str(tmp_path / f"in.{suffix}"), str(tmp_path / "out")
    write(pd.DataFrame({"id": [1, 2], "body": [None, "x"]}), Path(source))
    check_tables(source, output)
    check_tables(source, output, "body")
    with pytest.raises(DataError, match="^input_col=bdy: .* has no such column; it has: id, body$"):
        check_tables(source, output, "bdy")
    assert not list(tmp_path.glob(".llmops*"))


@pytest.mark.parametrize(("suffix", "held"), [("parquet", "int64"), ("jsonl", "int")])
def test_a_column_of_numbers_is_no_text(spark, tmp_path, monkeypatch, suffix, held):
    source = str(tmp_path / f"in.{suffix}")
    write(pd.DataFrame({"id": [1, 2]}), Path(source))
    with pytest.raises(DataError, match=f"^input_col=id: this column of .* holds {held}, not text"):
        check_tables(source, str(tmp_path / "out"), "id")
    monkeypatch.setattr("mlflow_llmops.scoring.table.check_tables", lambda *_: None)  # as for a path with a scheme
    with pytest.raises(DataError, match="^input_col=id: this column of .* holds bigint, not text"):
        score_table(spark, "models:/x/1", source, str(tmp_path / "out"), "id")


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_head_says_of_folders_what_spark_says(spark, tmp_path, suffix, packed):
    folder = tmp_path / f"in.{suffix}"
    frame = spark.createDataFrame([(1, "x", None), (2, None, "y")], "number long, `te.xt` string, late string")
    writer = frame.coalesce(1).write.option("header", "true").option("compression", "gzip" if packed else "none")
    getattr(writer, suffix.replace("jsonl", "json"))(str(folder))
    read = read_table(spark, str(folder))
    for name, type_ in read.dtypes:
        if type_ == "string":
            check_tables(str(folder), str(tmp_path / "out"), name)
        else:
            with pytest.raises(DataError, match="not text"):
                check_tables(str(folder), str(tmp_path / "out"), name)
    with pytest.raises(DataError, match="no such column"):
        check_tables(str(folder), str(tmp_path / "out"), "text")


def test_categories_are_texts_and_numbers_before_a_text_are_too(spark, tmp_path):
    pd.DataFrame({"text": pd.Categorical(["x", "y"])}).to_parquet(tmp_path / "in.parquet")
    (tmp_path / "in.jsonl").write_text('{"text": 1}\nno json\n{"text": null}\n{"text": "x"}\n')
    for source in ("in.parquet", "in.jsonl"):
        check_tables(str(tmp_path / source), str(tmp_path / "out"), "text")
        assert dict(read_table(spark, str(tmp_path / source)).dtypes)["text"] == "string"


def test_a_broken_file_is_told_in_one_line(spark, store, tmp_path, monkeypatch):
    whole = tmp_path / "whole.parquet"
    pd.DataFrame({"text": [f"oven and butter {i}" for i in range(5000)]}).to_parquet(whole)
    (tmp_path / "cut.parquet").write_bytes(whole.read_bytes()[:-100])
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "no.parquet").mkdir()
    (tmp_path / "cut.jsonl").mkdir()
    (tmp_path / "cut.jsonl" / "part-0.json.gz").write_bytes(gzip.compress(b'{"text": null}\n' * 5000)[:60])
    for source in ("cut.parquet", "empty.parquet", "cut.jsonl"):
        with pytest.raises(DataError, match=f"^score_input=.*{source} cannot be read .*write it again$") as told:
            check_tables(str(tmp_path / source), str(tmp_path / "out"), "text")
        assert "\n" not in str(told.value)
    with pytest.raises(DataError, match="has no such column"):
        check_tables(str(tmp_path / "no.parquet"), str(tmp_path / "out"), "text")
    monkeypatch.setattr("mlflow_llmops.scoring.table.check_tables", lambda *_: None)  # as for a path with a scheme
    for source in ("cut.parquet", "empty.parquet", "no.parquet", "nowhere.parquet"):
        with pytest.raises(DataError, match=f"^score_input=.*{source} cannot be read") as told:
            score_table(spark, "models:/x/1", str(tmp_path / source), str(tmp_path / "out"))
        assert "\n" not in str(told.value)


def test_a_file_whose_middle_is_broken_is_told_when_the_job_meets_it(spark, uris, tmp_path):
    source = tmp_path / "in.parquet"
    pd.DataFrame({"text": [f"oven and butter {i}" for i in range(5000)]}).to_parquet(source)
    content = bytearray(source.read_bytes())
    content[4:2000] = os.urandom(1996)
    source.write_bytes(content)
    with pytest.raises(DataError, match="^score_input=.*in.parquet cannot be read"):
        score_table(spark, uris["exported"], str(source), str(tmp_path / "out"))


def test_an_output_that_cannot_be_written_is_told_before_the_work(tmp_path):
    write(pd.DataFrame({"text": ["x"]}), tmp_path / "in.csv")
    (tmp_path / "file.txt").write_text("mine")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.geteuid() == 0:  # to whom every folder is open, but not this one
        closed = Path("/proc")
    for output in (tmp_path / "file.txt" / "out", closed / "a" / "out", closed / "out"):
        with pytest.raises(DataError, match="^score_output=.* cannot be written: "):
            check_tables(str(tmp_path / "in.csv"), str(output))
    check_tables(str(tmp_path / "in.csv"), str(tmp_path / "new" / "folder" / "out"))
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_chain_gives_answers_with_their_sources(spark, store, tiny_model, tiny_decoder, tmp_path):
    settings = ChainSettings("rag", max_new_tokens=4, top_k=1)
    folder = tmp_path / "chain"
    folder.mkdir()
    settings.write(folder)
    text.save_model(tiny_decoder, folder / WRITER)
    save_embedder(tiny_model, folder / ENCODER)
    documents = [("sea", "The boat left the harbour."), ("kitchen", "Butter and flour go into the oven.")]
    _chains.index(documents, _chains.embeddings_of(settings, folder), 80, 0, folder / INDEX)
    langchain_chain.save_model(folder, tmp_path / "saved")
    frame = pd.DataFrame({"id": range(3), "text": ["the oven with butter", None, "a boat in the harbour"]})
    frame.to_parquet("in.parquet")
    score_table(spark, str(tmp_path / "saved"), "in.parquet", "out.parquet")
    scored = pd.read_parquet("out.parquet").sort_values("id")["prediction"].tolist()
    alone = langchain_chain.load_model(str(tmp_path / "saved")).predict(frame["text"])
    assert [None if row is None else list(row["sources"]) for row in scored] == [["kitchen"], None, ["sea"]]
    assert [row["answer"] for row in scored if row is not None] == alone["answer"].dropna().tolist()
    assert [row["error"] for row in scored if row is not None] == [None, None]
    udf = mlflow.pyfunc.spark_udf(
        spark, str(tmp_path / "saved"), result_type="struct<answer: string, sources: array<string>, error: string>"
    )
    table = spark.read.parquet(str(Path("in.parquet").absolute())).orderBy("id")
    stock = [row["one"] for row in table.select("id", udf("text").alias("one")).orderBy("id").collect()]
    assert [row["sources"] for row in stock] == [["kitchen"], None, ["sea"]]
    assert [row["answer"] for row in stock] == [None if pd.isna(each) else each for each in alone["answer"]]
