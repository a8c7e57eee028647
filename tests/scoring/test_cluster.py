"""A real standalone master with two workers, and Spark Connect: the model goes to them, whatever they share with us."""

import os
import re
import subprocess
import sys

import pandas as pd
import pytest

from mlflow_llmops.flavors import exported_text

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


def test_the_step_runs_on_a_standalone_cluster(cluster, store, table):
    command = [sys.executable, "-m", "mlflow_llmops", "score", "--model", "model", "--score-input", "in.parquet"]
    command += [
        "--score-output",
        "out",
        "--id-col",
        "id",
        "--checkpoint",
        str(store / "kept"),
        "--checkpoint-rows",
        "10",
    ]
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(
        [*command, "--master", cluster], capture_output=True, text=True, cwd=store, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    scored = pd.read_parquet(store / "out").sort_values("id")
    assert list(scored["id"]) == list(range(ROWS))
    assert [row["label"] for row in scored["prediction"]] == table
    for i in range(2):  # each worker fetched the model and had a part of the work
        assert list((store / f"work{i}").rglob("llmops-*.zip"))
    assert re.search(rf"{ROWS} rows scored", done.stdout)


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
