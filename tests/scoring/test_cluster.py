"""A real standalone master with two workers, and Spark Connect: the model goes to them, whatever they share with us."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyspark
import pytest

from mlflow_llmops.flavors import exported_text

pytestmark = [pytest.mark.spark, pytest.mark.slow]
SPARK_CLASS = str(Path(pyspark.__file__).parent / "bin" / "spark-class")
ROWS = 60


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a master whose two workers have one core each."""
    port = free_port()
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    master = ["org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]
    url = f"spark://127.0.0.1:{port}"
    commands = [master]
    for i in range(2):
        worker = ["org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--cores", "1", "--memory", "1g"]
        commands.append([*worker, "--webui-port", "0", "--work-dir", str(tmp_path / f"work{i}"), url])
    with (tmp_path / "cluster.log").open("w") as log:
        started = [
            subprocess.Popen([SPARK_CLASS, *c], env=environment, stdout=log, stderr=log, start_new_session=True)
            for c in commands
        ]
    try:
        deadline = time.monotonic() + 90
        while (tmp_path / "cluster.log").read_text().count("Registering worker") < 2:
            assert time.monotonic() < deadline, (tmp_path / "cluster.log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


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
