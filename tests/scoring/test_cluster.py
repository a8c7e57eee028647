"""A real standalone master with two workers, and Spark Connect: the model goes to them, whatever they share with us."""

import os
import subprocess
import sys
import time

import mlflow
import pandas as pd
import pytest

from mlflow_llmops import names
from mlflow_llmops.flavors import exported_text
from mlflow_llmops.mlproject import folder
from mlflow_llmops.registry.versions import register

pytestmark = [pytest.mark.spark, pytest.mark.slow]
ROWS = 60


@pytest.fixture
def table(tmp_path, tiny_exported, tiny_texts):
    exported_text.save_model(tiny_exported.folder, tmp_path / "model")
    texts = tiny_texts.test.texts[:ROWS]
    for part in range(4):
        rows = range(part * 15, part * 15 + 15)
        (tmp_path / "in.parquet").mkdir(exist_ok=True)
        frame = pd.DataFrame({"id": rows, "text": [texts[i] for i in rows]})
        frame.to_parquet(tmp_path / "in.parquet" / f"{part}.parquet")
    return list(exported_text.ExportedText(tiny_exported.folder).predict(list(texts))["label"])


@pytest.fixture
def environment() -> dict[str, str]:
    """Of somebody who has activated this Python's environment."""
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"  # noqa: PTH120
    return {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PATH": path}


def test_mlflow_run_scores_on_a_standalone_cluster_though_an_executor_is_killed(cluster, store, moody, environment):
    model = moody(seconds=0.05)
    texts = [f"text {i:03}" for i in range(ROWS)]
    pd.DataFrame({"id": range(ROWS), "text": texts}).to_parquet("in.parquet")
    options = {"model": model.uri, "score_input": store / "in.parquet", "score_output": store / "out", "id_col": "id"}
    options |= {"checkpoint": store / "kept", "checkpoint_rows": 5, "master": cluster.url}
    command = ["mlflow", "run", str(folder()), "--env-manager", "local", "-e", "score"]
    command += [word for name, value in options.items() for word in ("-P", f"{name}={value}")]
    with (store / "driver.log").open("w") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        while not list((store / "kept" / "rows").glob("part-*.parquet")):
            assert driver.poll() is None, (store / "driver.log").read_text()[-3000:]
            time.sleep(0.05)
        cluster.executors()[0].kill()
        assert driver.wait(400) == 0, (store / "driver.log").read_text()[-3000:]
    finally:
        driver.kill()
    scored = pd.read_parquet("out").sort_values("id")
    assert list(scored["id"]) == list(range(ROWS))
    assert list(scored["prediction"]) == [8.0] * ROWS
    for i in range(2):  # each worker fetched the model and had a part of the work
        assert list((cluster.folder / f"work{i}").rglob("llmops-*.zip"))
    [run] = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.info.status == "FINISHED"
    assert run.data.metrics[names.SCORED_ROWS] == ROWS
    assert f"{ROWS} rows scored" in (store / "driver.log").read_text()


def test_a_slow_task_is_started_again_and_each_row_is_there_once(cluster, store, moody, environment):
    model = moody()
    texts = [f"text {i:03}" for i in range(ROWS - 1)] + ["slow one"]
    pd.DataFrame({"id": range(ROWS), "text": texts}).to_parquet("in.parquet")
    settings = {"speculation": "true", "speculation.quantile": "0.5", "speculation.minTaskRuntime": "100ms"}
    told = " ".join(f"--conf spark.{name}={value}" for name, value in settings.items())
    command = [sys.executable, "-m", "mlflow_llmops", "score", "--model", model.uri, "--score-input", "in.parquet"]
    command += ["--score-output", "out", "--id-col", "id", "--checkpoint", "kept", "--checkpoint-rows", "10"]
    done = subprocess.run(
        [*command, "--master", cluster.url],
        capture_output=True,
        text=True,
        env={**environment, "PYSPARK_SUBMIT_ARGS": f"{told} pyspark-shell"},
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert model.asked.count("slow one") == 2
    scored = pd.read_parquet("out").sort_values("id")
    assert list(scored["id"]) == list(range(ROWS))
    assert list(scored["prediction"]) == [8.0] * ROWS
    assert len(pd.read_parquet("kept/rows")) == ROWS


STOCK = """
import sys
import mlflow
from mlflow_llmops.scoring.table import spark_session
rows, master, out = sys.argv[1:]
spark = spark_session(master)
udf = mlflow.pyfunc.spark_udf(spark, "models:/m@champion", result_type="struct<label: string, score: double>")
table = spark.read.parquet(rows).selectExpr("id", "if(id % 7 = 0, null, text) as text")
table.repartition(4).withColumn("prediction", udf("text")).write.parquet(out)
"""


def test_mlflows_own_udf_scores_a_version_on_a_standalone_cluster(cluster, store, table, environment):
    """Its path for clusters, with the model cached by worker, which no local master takes."""
    with mlflow.start_run():
        register(exported_text.log_model(store / "model" / "artifact").model_uri, "m", {})
    mlflow.MlflowClient().set_registered_model_alias("m", "champion", "1")
    arguments = [str(store / "in.parquet"), cluster.url, str(store / "out")]
    done = subprocess.run(
        [sys.executable, "-c", STOCK, *arguments], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    scored = pd.read_parquet(store / "out").sort_values("id")
    assert list(scored["id"]) == list(range(ROWS))
    expected = [None if i % 7 == 0 else label for i, label in enumerate(table)]
    assert [row["label"] for row in scored["prediction"]] == expected


CONNECT = """
import sys
from pyspark.sql import SparkSession
from mlflow_llmops.scoring import score
rows, kept, out = sys.argv[1:]
spark = SparkSession.builder.remote("local[2]").getOrCreate()
assert "connect" in type(spark).__module__
table = spark.read.parquet(rows)
for i in range(2):  # the model is handed out once a session
    score(table, "model").write.mode("overwrite").parquet(out)
again = score(table, "model", id_col="id", checkpoint=kept, checkpoint_rows=10)
assert again.count() == spark.read.parquet(out).count() == 60
assert again.where("prediction is null").count() == 0
"""


def test_it_runs_through_spark_connect(store, table):
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    arguments = [str(store / "in.parquet"), str(store / "kept"), str(store / "out")]
    done = subprocess.run(
        [sys.executable, "-c", CONNECT, *arguments],
        capture_output=True,
        text=True,
        cwd=store,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    scored = pd.read_parquet(store / "out").sort_values("id")
    assert [row["label"] for row in scored["prediction"]] == table
