"""A task of Spark runs a version on the cores that it was given, and its process opens it once for all its tasks."""

import json
import os
import subprocess
import sys

import pytest

from mlflow_llmops.flavors._handle import SET_BY_US, TOKENIZER_THREADS
from mlflow_llmops.flavors.by_kind import save_text_model

SCRIPT = """
import json, os, sys
import mlflow
from pyspark.sql import SparkSession

os.environ["PYSPARK_PYTHON"] = sys.executable
folder, cpus = sys.argv[1:]
session = SparkSession.builder.master("local[2]").config("spark.task.cpus", cpus).config("spark.ui.enabled", "false")
spark = session.getOrCreate()

def seen(batches):
    import mlflow
    from mlflow_llmops.batching.sessions import KEPT
    for batch in batches:
        raw = mlflow.pyfunc.load_model(folder).get_raw_model()  # as spark_udf does, for each task
        assert len(raw.predict(batch["text"])) == len(batch)
        engine = raw._handle.session.scorer.scorer.network
        if hasattr(engine, "compiled"):
            threads = engine.compiled.get_property("INFERENCE_NUM_THREADS")
        else:
            import torch
            threads = torch.get_num_threads()
        said = {"threads": int(threads), "rayon": int(os.environ["RAYON_NUM_THREADS"]), "opened": KEPT.misses}
        batch["text"] = json.dumps({**said, "process": os.getpid()})
        yield batch[["text"]]

rows = spark.createDataFrame([(f"the boat and rain {i}",) for i in range(64)], "text string").repartition(8)
print(json.dumps([json.loads(row["text"]) for row in rows.mapInPandas(seen, "text string").collect()]))
spark.stop()
"""


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "cpus"), [("torch", 2), ("openvino", 1), ("openvino", 2)])
def test_a_task_takes_its_cores_and_opens_once(kind, cpus, tiny_model, tiny_exported, tmp_path):
    save_text_model(tiny_model if kind == "torch" else tiny_exported, tmp_path / "model")
    # a driver's own cores, and what a model that it opened itself has left, say nothing of a task's
    left = {"OMP_NUM_THREADS": "1" if cpus == 2 else "2", TOKENIZER_THREADS: "7", SET_BY_US: "7"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path / "model"), str(cpus)],
        capture_output=True,
        text=True,
        env={**os.environ, **left},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert len(said) == 64
    assert {each["threads"] for each in said} == {each["rayon"] for each in said} == {cpus}
    assert max(each["opened"] for each in said) == 1
    assert len({each["process"] for each in said}) <= 2
