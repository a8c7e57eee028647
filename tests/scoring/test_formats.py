"""The `score` step from every kind of table into every other, and what it leaves where it fails."""

import json
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError, DataError
from mlflow_llmops.steps.score import score
from mlflow_llmops.tracking.signature import SIGNATURES

pytestmark = pytest.mark.spark

TEXTS = ['he said "no, never"', "two\nlines", None, "boom", "a\0b", "caf\u00e9 \U0001f600", "", "  "]
LENGTHS = [None if text in (None, "boom") else float(len(text or "")) for text in TEXTS]


@pytest.fixture
def lake(spark, store) -> Iterator[str]:
    """A database of the catalogue, with its tables in the test's folder."""
    spark.sql(f"create database lake location '{store / 'lake'}'")
    yield "table:lake"
    spark.sql("drop database lake cascade")


@pytest.fixture
def rows(spark, lake) -> pd.DataFrame:
    """`TEXTS` in all kinds of input: `in.parquet`, `in.csv`, `in.jsonl` and `table:lake.rows`."""
    frame = pd.DataFrame({"id": range(len(TEXTS)), "text": pd.Series(TEXTS, dtype=object)})
    frame.to_parquet("in.parquet")
    frame.to_csv("in.csv", index=False)
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))
    spark.read.parquet(str(Path("in.parquet").absolute())).write.saveAsTable("lake.rows")
    return frame


def written(spark, output: str) -> pd.DataFrame:
    """As somebody reads it who does not know Spark, where that is possible."""
    if output.startswith("table:"):
        return spark.table(output.removeprefix("table:")).toPandas()
    if output.endswith(".csv"):
        return pd.concat(pd.read_csv(part) for part in Path(output).glob("part-*"))
    if output.endswith(".jsonl"):
        return pd.concat(pd.read_json(part, lines=True) for part in Path(output).glob("part-*"))
    return pd.read_parquet(output)


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("in.parquet", "out.csv"),
        ("in.csv", "out.jsonl"),
        ("in.jsonl", "table:lake.scored"),
        ("table:lake.rows", "out.parquet"),
    ],
)
def test_every_kind_of_table_goes_in_and_out(spark, rows, moody, capfd, source, output):
    outcome = score(moody().uri, source, output, id_col="id", max_error_rate=0.5)
    scored = written(spark, output).astype({"id": int}).sort_values("id")
    expected = LENGTHS
    if source == "in.csv":  # which knows no difference between nothing and an empty text
        expected = [length or None for length in LENGTHS]
    assert [None if pd.isna(value) else value for value in scored["prediction"]] == expected
    errors = scored["prediction_error"]
    assert [i for i, error in enumerate(errors) if isinstance(error, str)] == [3]
    assert errors.iloc[3].startswith("RuntimeError: it went off, ***")
    meta = scored["prediction_meta"].iloc[0]
    meta = json.loads(meta) if isinstance(meta, str) else meta.asDict() if hasattr(meta, "asDict") else meta
    assert meta["attempts"] >= 1 and meta["milliseconds"] > 0
    run = mlflow.get_run(outcome.run_id)
    assert run.data.metrics[names.SCORED_ROWS] == len(TEXTS)
    assert run.data.metrics[names.SCORED_ERRORS] == 1
    assert run.data.metrics[names.SCORED_ROWS_PER_S] > 0
    assert names.SCORED_VERSION in run.data.tags and run.data.tags[names.SCORED_DIGEST]
    sources = {each.tags[0].value: json.loads(each.dataset.source) for each in run.inputs.dataset_inputs}
    named = {context: found.get("table_name") or found.get("path") for context, found in sources.items()}
    assert named == {"scored": source.removeprefix("table:"), "predictions": output.removeprefix("table:")}
    shown = capfd.readouterr().err
    assert f"{len(TEXTS)}/{len(TEXTS)}" in shown and "rows/s" in shown and "1 failed" in shown


def test_a_table_that_exists_is_kept_unless_told(spark, rows, moody):
    model = moody()
    score(model.uri, "in.parquet", "table:lake.scored")
    with pytest.raises(DataError, match=r"^score_output=table:lake.scored exists; give overwrite=true"):
        score(model.uri, "in.parquet", "table:lake.scored")
    rows.head(2).to_parquet("in.parquet")
    score(model.uri, "in.parquet", "table:lake.scored", overwrite=True)
    assert spark.table("lake.scored").count() == 2
    with pytest.raises(DataError, match=r"^score_input=table:lake.nothing: the catalogue has no such table"):
        score(model.uri, "table:lake.nothing", "out")
    asked = len(model.asked)
    with pytest.raises(DataError, match=r"^score_output=table:lake.rows is score_input; write elsewhere$"):
        score(model.uri, "table:lake.rows", "table:lake.rows", overwrite=True)
    assert spark.table("lake.rows").count() == len(TEXTS)
    assert len(model.asked) == asked


@pytest.mark.parametrize(("source", "output"), [("delta:rows", "out"), ("in.parquet", "delta:out")])
def test_a_session_without_delta_says_so_before_a_row_is_scored(rows, moody, source, output):
    model = moody()
    with pytest.raises(
        DataError, match=r"^score_\w+=delta:\w+: this Spark session has no Delta; start it with"
    ) as told:
        score(model.uri, source, output)
    assert "\n" not in str(told.value)
    assert not Path("out").exists()
    assert model.asked == []


def test_a_job_that_fails_leaves_no_half_output_and_keeps_the_one_before(rows, moody):
    model = moody()
    with pytest.raises(DataError, match=r"^a row with id 3 failed: RuntimeError: it went off"):
        score(model.uri, "in.parquet", "out.parquet", id_col="id", on_error="raise")
    assert not list(Path().glob("*out.parquet*"))
    rows.drop(3).to_parquet("good.parquet")
    score(model.uri, "good.parquet", "out.parquet")
    with pytest.raises(DataError, match=r"^max_error_rate: more than 0 rows failed"):
        score(model.uri, "in.parquet", "out.parquet", max_error_rate=0.1, overwrite=True)
    assert len(pd.read_parquet("out.parquet")) == len(TEXTS) - 1


def test_a_text_with_a_lone_surrogate_costs_no_other_row(moody, store):
    Path("odd.jsonl").write_text('{"text": "a\\ud800b"}\n{"text": "good"}\n')
    score(moody().uri, "odd.jsonl", "out.parquet")
    scored = pd.read_parquet("out.parquet")
    assert scored["prediction"].tolist() == [3.0, 4.0]


def test_failed_rows_are_tried_again_through_the_step(rows, moody):
    model = moody()
    rows.assign(text=rows["text"].replace("boom", "flaky")).to_parquet("in.parquet")
    job = {"id_col": "id", "checkpoint": "kept", "resume": True}
    score(model.uri, "in.parquet", "out", **job)
    assert pd.read_parquet("out")["prediction_error"].dropna().tolist() == ["ConnectionError: try again later"]
    model.log.with_suffix(".mended").touch()
    before = len(model.asked)
    score(model.uri, "in.parquet", "out", overwrite=True, **job)
    assert len(model.asked) == before
    score(model.uri, "in.parquet", "out", overwrite=True, retry_failed=True, **job)
    assert model.asked[before:] == ["flaky"]
    scored = pd.read_parquet("out")
    assert sorted(scored["id"]) == list(range(len(TEXTS))) and scored["prediction_error"].isna().all()


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("table:nowhere.scored", "SCHEMA_NOT_FOUND"),
        ("table:two words", "PARSE_SYNTAX_ERROR"),
        ("table:", "PARSE_"),
    ],
)
def test_a_table_that_the_catalogue_does_not_take_is_told(rows, moody, output, said):
    model = moody()
    with pytest.raises(DataError, match=rf"^score_output={output}: .*{said}.*; name another table$") as told:
        score(model.uri, "in.parquet", output)
    assert "\n" not in str(told.value)
    assert model.asked == []


def test_params_that_the_model_has_not_are_told(rows, writes, store):
    for params, said in {
        '{"temprature": 1}': r"^params: model=\S+ has no param temprature; it has: max_new_tokens, ",
        '{"temperature": "hot"}': r"^params: temperature='hot': the model takes ",
    }.items():
        with pytest.raises(ConfigError, match=said):
            score(writes, "in.parquet", "out", params=params)
    assert not Path("out").exists()


@pytest.fixture
def writes(tmp_path) -> str:
    """A model with the signature of those that write."""
    code = str(Path(__file__).parent / "moody.py")
    signature = SIGNATURES["text-generation"]
    mlflow.pyfunc.save_model(
        tmp_path / "writes", python_model=code, signature=signature, pip_requirements=["mlflow"], model_config={}
    )
    return str(tmp_path / "writes")
