"""The stack of docker/compose.yaml without containers: MLflow on PostgreSQL, artifacts through its proxy, and a
Spark standalone cluster."""

import os
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pandas as pd
import pyspark
import pytest
import yaml
from mlflow.tracking import MlflowClient
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlflow_llmops import names
from tests.serving_process import free_port

ROOT = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "SPARK_LOCAL_IP": "127.0.0.1", **more}


def run(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mlflow_llmops", *map(str, words)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.postgres
def test_compress_register_promote_and_score_over_the_whole_stack(
    server, cluster, tmp_path, tiny_folder, tiny_data, tiny_texts
):
    common = ["--data", tiny_data, "--register-as", "stack", "--measure-seconds", "1", "--speed-grid", "false"]
    run("finetune", "--model", tiny_folder, "--epochs", "2", *common)
    run("quantize", "--model", "models:/stack/1", "--method", "int8_dynamic", *common)
    run("compare", "--name", "stack", "--versions", "1,2", "--data", tiny_data, "--measure-seconds", "1")
    bounds = ["--max-quality-drop", "0.2", "--min-speedup", "0", "--remeasure", "never"]
    run("promote", "--name", "stack", "--version", "2", "--to", "Production", *bounds)
    champion = MlflowClient().get_model_version_by_alias("stack", names.CHAMPION)
    assert int(champion.version) == 2 and champion.tags[names.METHOD] == "quantize.int8_dynamic"
    assert champion.source.startswith(("models:/", "mlflow-artifacts:/")), "through the server, not past it"

    texts = tiny_texts.test.texts[:40]
    pd.DataFrame({"id": range(40), "text": texts}).to_parquet(tmp_path / "rows.parquet")
    given = ["--score-input", "rows.parquet", "--score-output", "scored", "--id-col", "id", "--master", cluster.url]
    said = run("score", "--model", "models:/stack@champion", *given)
    assert "(version 2)" in said
    scored = pd.read_parquet(tmp_path / "scored").sort_values("id")
    assert list(scored["text"]) == list(texts) and scored["prediction_error"].isna().all()
    assert {row["label"] for row in scored["prediction"]} <= set(tiny_texts.labels)
    assert list((tmp_path / "artifacts").rglob("MLmodel")), "the server keeps the artifacts"


@pytest.mark.slow
@pytest.mark.spark
def test_spark_takes_the_compose_files_commands(tmp_path):
    """On this machine's address: a worker comes to its master with the cores and the memory that are said there."""
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    port, log = free_port(), tmp_path / "spark.log"
    here = {"spark-master": "127.0.0.1", "7077": str(port), "spark://spark-master:7077": f"spark://127.0.0.1:{port}"}
    started = []
    try:
        with log.open("w") as file:
            for name in ("spark-master", "spark-worker"):
                [program, *words] = services[name]["command"]
                command = [
                    str(Path(pyspark.__file__).parent / "bin" / program),
                    *(here.get(word, word) for word in words),
                ]
                started.append(subprocess.Popen(command, env=environment(), stdout=file, stderr=file))
        deadline = time.monotonic() + 120
        while "Successfully registered with master" not in log.read_text():
            assert all(each.poll() is None for each in started) and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.2)
    finally:
        for each in started:
            each.terminate()
            each.wait(30)
    assert re.search(r"Registering worker \S+ with 2 cores, 3.0 GiB RAM", log.read_text())


@pytest.mark.slow
@pytest.mark.spark
def test_the_self_test_of_the_images_passes(tmp_path):
    """In this environment, and that of the smaller image with what that one has not hidden."""
    command = [sys.executable, str(ROOT / "docker" / "self_test.py")]
    clean = {name: value for name, value in environment().items() if not name.startswith("MLFLOW")}
    done = subprocess.run([*command, "kept"], capture_output=True, text=True, env=clean, cwd=tmp_path, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "texts scored alike by pyfunc and Spark" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]

    (tmp_path / "sitecustomize.py").write_text(ONLY.format(hidden=hidden_from_the_smaller_image()))
    there = {**clean, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, str(ROOT / "docker" / "serve_test.py"), "kept"]
    done = subprocess.run(command, capture_output=True, text=True, env=there, cwd=tmp_path, timeout=200)
    assert done.stdout.count("texts answered alike without torch") == 2, done.stderr[-3000:]


ONLY = """
import sys
from importlib.machinery import PathFinder

class Only:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in {hidden!r} else PathFinder.find_spec(name, path, target)

    find_distributions = PathFinder.find_distributions

sys.meta_path[sys.meta_path.index(PathFinder)] = Only
"""


def hidden_from_the_smaller_image() -> set[str]:
    """The modules installed here that docker/serve_exported.txt and what it needs do not bring."""
    lines = (ROOT / "docker" / "serve_exported.txt").read_text(encoding="utf-8").splitlines()
    wanted, brought = [line for line in lines if not line.startswith("#")], {"mlflow-llmops"}
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name not in brought:
            brought.add(name)
            needs = map(Requirement, metadata.requires(name) or ())
            wanted += [each.name for each in needs if not each.marker or each.marker.evaluate({"extra": ""})]
    found = metadata.packages_distributions()
    hidden = {module for module, owners in found.items() if not brought & set(map(canonicalize_name, owners))}
    assert {"torch", "transformers", "pyspark", "scipy", "sklearn", "openai"} <= hidden
    return hidden
