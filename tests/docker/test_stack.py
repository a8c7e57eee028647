"""The stack of docker/compose.yaml without containers: MLflow on PostgreSQL, artifacts through its proxy, and a
Spark standalone cluster."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from mlflow_llmops import names

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
def test_the_self_test_of_the_images_passes(tmp_path):
    """In this environment; docker/README.md says when it was run in a clean one."""
    command = [sys.executable, str(ROOT / "docker" / "self_test.py")]
    clean = {name: value for name, value in environment().items() if not name.startswith("MLFLOW")}
    done = subprocess.run(command, capture_output=True, text=True, env=clean, cwd=tmp_path, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "texts scored alike by pyfunc and Spark" in done.stdout
    assert not list(tmp_path.iterdir())
