"""`score`: order, rows and answers whatever Spark does, and faults that cost what they must and no more."""

import math
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from pyspark.sql import functions as sql

from mlflow_llmops.errors import ConfigError, DataError, LLMOpsError, ModelError
from mlflow_llmops.flavors import exported_text
from mlflow_llmops.registry.versions import register
from mlflow_llmops.scoring import score
from mlflow_llmops.scoring.table import score_table

pytestmark = pytest.mark.spark

TOLERANCE = 1e-6
"""Of a probability in fp32: a matrix product adds up in another order where its batch has another shape."""


@pytest.fixture(scope="module")
def saved(tiny_exported, tmp_path_factory):
    """The tiny exported model as an MLflow model in a folder, and what it says of a text alone."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    exported_text.save_model(tiny_exported.folder, folder)
    return str(folder), exported_text.ExportedText(tiny_exported.folder)


def rows_of(df, order):
    return sorted(df.collect(), key=lambda row: row[order])  # Spark's own sort would look at its input twice


def test_a_worker_imports_no_torch():
    code = "import sys, mlflow_llmops.scoring.worker; print(*sorted({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


@given(
    picks=st.lists(st.one_of(st.none(), st.integers(0, 30)), min_size=1, max_size=60),
    partitions=st.integers(1, 5),
    arrow=st.sampled_from([1, 3, 7, 10_000]),
    dedupe=st.booleans(),
)
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
def test_rows_keep_their_place_and_their_answer(spark, saved, tiny_texts, picks, partitions, arrow, dedupe):
    uri, model = saved
    texts = [None if pick is None else tiny_texts.test.texts[pick] for pick in picks]
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", arrow)
    try:
        frame = spark.createDataFrame(
            pd.DataFrame({"place": range(len(texts)), "text": pd.Series(texts, dtype=object)})
        )
        frame = (
            frame.withColumn("text", sql.col("text").cast("string")).coalesce(1).repartitionByRange(partitions, "place")
        )
        rows = score(frame, uri, dedupe=dedupe).collect()
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")
    places = [row["place"] for row in rows]
    assert sorted(places) == list(range(len(texts)))
    assert dedupe or places == sorted(places)
    expected = model.predict(texts)
    for row in rows:
        assert row["text"] == texts[row["place"]]
        if row["text"] is None:
            assert row["prediction"] is None and row["prediction_error"] is None and row["prediction_meta"] is None
        else:
            assert row["prediction"]["label"] == expected["label"][row["place"]]
            assert abs(row["prediction"]["score"] - expected["score"][row["place"]]) <= TOLERANCE
            assert row["prediction_meta"]["attempts"] == 1
            assert row["prediction_meta"]["tokens"] == len(model.scorer.encode([row["text"]])[0])


def test_fp32_is_the_same_within_its_tolerance_however_rows_are_dealt_out(spark, saved, tiny_texts):
    uri, _ = saved
    texts = tiny_texts.train.texts[:200]
    frame = spark.createDataFrame(pd.DataFrame({"place": range(200), "text": texts}))
    answers = []
    for dealt in (
        frame.coalesce(1),
        frame.repartition(2),
        frame.repartition(16),
        frame.repartition(3, sql.xxhash64("text")),
    ):
        rows = rows_of(score(dealt, uri), "place")
        answers.append(
            (np.array([row["prediction"]["score"] for row in rows]), [r["prediction"]["label"] for r in rows])
        )
    for scores, labels in answers[1:]:
        assert labels == answers[0][1]
        assert np.abs(scores - answers[0][0]).max() <= TOLERANCE


def test_poison_costs_its_own_row_alone(spark, saved):
    uri, model = saved
    good = "oven and butter"
    texts = [good, None, "", "   ", "the boat " * 3000, "a\0b", good, "caf\u00e9 \U0001f600"]
    frame = spark.createDataFrame(list(enumerate(texts)), "place long, text string")
    # lone surrogates, as a writer with another idea of UTF-8 leaves them
    frame = frame.union(spark.sql("select 8L as place, cast(unhex('6162EDA080') as string) as text")).coalesce(1)
    rows = rows_of(score(frame, uri).drop("text"), "place")
    assert [row["prediction"] is None for row in rows] == [False, True, *[False] * 6, True]
    assert [row["prediction_error"] is None for row in rows] == [*[True] * 8, False]
    assert "not valid UTF-8" in rows[8]["prediction_error"]
    alone = model.predict(texts)
    for row, label in zip(rows, alone["label"], strict=False):
        assert row["prediction"] is None or row["prediction"]["label"] == label


def frame_of(spark, texts, partitions=1):
    frame = pd.DataFrame({"id": range(len(texts)), "text": texts})
    return spark.createDataFrame(frame).repartitionByRange(partitions, "id")


@pytest.mark.parametrize("poison", ["boom", "short", "type"])
def test_a_batch_that_fails_is_bisected_to_the_guilty_row(spark, moody, poison):
    model = moody()
    texts = [f"text {i}" for i in range(40)]
    texts[17] = poison
    rows = rows_of(score(frame_of(spark, texts), model.uri), "id")
    assert [row["id"] for row in rows if row["prediction_error"]] == [17]
    assert [row["prediction"] for row in rows] == [None if i == 17 else float(len(t)) for i, t in enumerate(texts)]
    assert rows[17]["prediction_meta"]["attempts"] in (math.ceil(math.log2(40)), 1 + math.ceil(math.log2(40)))
    assert "sk-secret" not in str(rows)


def test_out_of_memory_halves_what_the_model_gets_at_once(spark, moody):
    model = moody(most=8)
    rows = rows_of(score(frame_of(spark, [f"text {i}" for i in range(64)]), model.uri), "id")
    assert all(row["prediction_error"] is None for row in rows)
    assert len(model.asked) < 64 * 5  # the failed 64, 32 and 16, and no more after it has learned


def test_what_happens_to_a_row_that_fails_can_be_chosen(spark, moody):
    frame = frame_of(spark, ["good", "boom", "fine"])
    silent = score(frame, moody().uri, on_error="null", output_col="length")
    assert silent.columns == ["id", "text", "length", "length_meta"]
    assert [row["length"] for row in rows_of(silent, "id")] == [4.0, None, 4.0]
    with pytest.raises(Exception, match="a row with id 1 failed: RuntimeError: it went off"):
        score(frame, moody().uri, on_error="raise", id_col="id").collect()


def test_too_many_errors_fail_the_job_in_one_line(spark, store, moody):
    pd.DataFrame({"text": ["boom 1", "boom 2", "c", "d"]}).to_parquet("in.parquet")
    with pytest.raises(DataError, match=r"^max_error_rate: more than 1 rows failed, the last one with: RuntimeError"):
        score_table(spark, moody().uri, "in.parquet", "out", max_error_rate=0.25)
    assert score_table(spark, moody().uri, "in.parquet", "out", overwrite=True, max_error_rate=0.5).errors == 2


def test_a_worker_that_is_killed_costs_its_task_alone(spark, moody):
    model = moody()
    texts = [f"text {i}" for i in range(19)] + ["kill me"]
    rows = rows_of(score(frame_of(spark, texts, 2), model.uri), "id")
    assert model.log.with_suffix(".killed").exists()
    assert [row["prediction"] for row in rows] == [float(len(text)) for text in texts]


def test_the_version_is_fixed_though_the_alias_moves_in_the_middle(spark, store, moody):
    client = mlflow.MlflowClient()
    for seconds in (0.0, 0.05):
        with mlflow.start_run():
            code = str(Path(__file__).parent / "moody.py")
            config = {"log": str(store / f"asked-{seconds}.log"), "seconds": seconds}
            signature = ModelSignature(Schema([ColSpec("string")]), Schema([ColSpec("double")]))
            info = mlflow.pyfunc.log_model(
                name="m", python_model=code, model_config=config, signature=signature, pip_requirements=["mlflow"]
            )
            register(info.model_uri, "m", {})
    client.set_registered_model_alias("m", "champion", "2")
    scored = score(frame_of(spark, ["x"] * 32, 8), "models:/m@champion", dedupe=False)
    rows: list = []
    job = threading.Thread(target=lambda: rows.extend(scored.collect()))
    job.start()
    while not (store / "asked-0.05.log").exists():  # its first rows are being scored
        assert job.is_alive()
        time.sleep(0.01)
    client.set_registered_model_alias("m", "champion", "1")
    job.join()
    assert [row["prediction_meta"]["version"] for row in rows] == ["2"] * 32
    assert not (store / "asked-0.0.log").exists()
    assert score(frame_of(spark, ["x"]), "models:/m@champion").first()["prediction_meta"]["version"] == "1"


# limits and the key


def test_an_endpoint_is_asked_once_a_text_and_one_failure_costs_one_row(spark, moody, endpoint, capfd):
    endpoint.seconds, endpoint.meet = 0.2, 3
    model = moody(url=endpoint.url)
    texts = [f"prompt {i % 10}" for i in range(30)] + ["fault"]
    scored = score(frame_of(spark, texts, 4), model.uri, concurrency=3, dedupe=True)
    rows = rows_of(scored, "id")
    assert [row["id"] for row in rows if row["prediction_error"]] == [30]
    assert sorted(endpoint.texts) == sorted(set(texts))
    assert endpoint.most_at_once == 3
    plan = scored._jdf.queryExecution().toString()
    out, err = capfd.readouterr()
    configured = str(spark.sparkContext.getConf().getAll())
    for place in (plan, out, err, configured, str(rows)):
        assert "sk-secret" not in place


def test_no_more_requests_a_second_than_allowed(spark, moody, endpoint):
    endpoint.seconds = 0.0
    model = moody(url=endpoint.url)
    start = time.monotonic()
    rows_of(score(frame_of(spark, [f"p{i}" for i in range(20)], 4), model.uri, requests_per_second=20), "id")
    assert len(endpoint.times) == 20
    times = sorted(endpoint.times)
    assert times[-1] - times[0] >= 0.85 * 19 / 20
    assert time.monotonic() - start < 15


def test_the_key_is_in_no_closure(spark, moody, endpoint):
    import pyspark.cloudpickle as cloudpickle

    from mlflow_llmops.scoring.job import Job
    from mlflow_llmops.scoring.model import resolve
    from mlflow_llmops.scoring.options import Options

    job = Job(frame_of(spark, ["x"]), resolve(moody(url=endpoint.url).uri), Options(concurrency=1))
    assert b"sk-secret" not in cloudpickle.dumps(job._work(job.limits))


# bad input, one clear line each


def test_a_missing_column_is_told_with_those_there(spark, moody):
    frame = frame_of(spark, ["x"])
    for options, said in [
        ({"input_col": "txt"}, "^input_col=txt: the table has no such column; it has: id, text$"),
        ({"id_col": "key"}, "^id_col=key: the table has no such column; it has: id, text$"),
        ({"input_col": "id"}, "^input_col=id: this column of the table holds bigint, not text"),
    ]:
        with pytest.raises(DataError, match=said):
            score(frame, moody().uri, **options)
    with pytest.raises(DataError, match="has a column prediction_error already"):
        score(frame.withColumn("prediction_error", sql.lit("")), moody().uri)


def test_an_id_that_is_not_unique_is_told_with_examples(spark, moody):
    frame = spark.createDataFrame([(1, "a"), (2, "b"), (2, "c")], "id long, text string")
    with pytest.raises(DataError, match="^id_col=id: ids must be unique, and 2 stand in several rows"):
        score(frame, moody().uri, id_col="id")
    with pytest.raises(DataError, match="^id_col=id: 1 rows have no id"):
        score(frame.withColumn("id", sql.expr("nullif(id, 1)")), moody().uri, id_col="id")


def test_a_model_of_something_else_than_text_is_told(spark, store, moody):
    numbers = ModelSignature(Schema([ColSpec("double", "x"), ColSpec("double", "y")]), Schema([ColSpec("double")]))
    code = str(Path(__file__).parent / "moody.py")
    mlflow.pyfunc.save_model("numbers", python_model=code, signature=numbers, pip_requirements=["mlflow"])
    with pytest.raises(ModelError, match="^model=numbers is no text model: it takes .*x.*y"):
        score(frame_of(spark, ["x"]), "numbers")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on_error": "ignore"}, "on_error=ignore: write one of column, null, raise"),
        ({"max_error_rate": 2}, "max_error_rate=2: a share"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"requests_per_second": 0}, "requests_per_second=0"),
        ({"checkpoint": "x"}, "checkpoint: .* name its column with id_col"),
        ({"resume": True}, "resume: .* name its folder with checkpoint"),
        ({"retry_failed": True}, "retry_failed: .* give resume=true too"),
    ],
)
def test_options_that_cannot_work_are_told(spark, moody, options, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        score(frame_of(spark, ["x"]), "nowhere", **options)


def test_scoring_twice_at_once_is_no_trouble(spark, saved, tiny_texts):
    uri, _ = saved
    frame = spark.createDataFrame(pd.DataFrame({"text": tiny_texts.test.texts[:20]}))
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(len(score(frame, uri).collect()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [20, 20]
    assert issubclass(DataError, LLMOpsError)
