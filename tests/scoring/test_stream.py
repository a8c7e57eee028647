"""The stream of the pages: a batch that is tried again replaces what it wrote."""

import re
import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from mlflow_llmops.flavors import exported_text
from mlflow_llmops.registry.versions import register

pytestmark = pytest.mark.spark
PAGE = (Path(__file__).parents[2] / "docs" / "scoring.md").read_text(encoding="utf-8")


def test_each_row_of_a_stream_is_scored_once_though_a_batch_is_tried_again(spark, store, tiny_exported, tiny_texts):
    with mlflow.start_run():
        register(exported_text.log_model(tiny_exported.folder).model_uri, "docstrings-classifier", {})
    mlflow.MlflowClient().set_registered_model_alias("docstrings-classifier", "champion", "1")
    (store / "arriving").mkdir()
    for i in range(2):
        rows = {"id": range(i * 10, i * 10 + 10), "text": tiny_texts.test.texts[i * 10 : i * 10 + 10]}
        pd.DataFrame(rows).to_parquet(store / "arriving" / f"{i}.parquet")
    [example] = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "foreachBatch" in block]

    def run() -> None:
        reader = spark.readStream.schema("id long, text string").option("maxFilesPerTrigger", 1)
        stream = reader.parquet(str(store / "arriving"))
        exec(example, {"stream": stream, "output": str(store / "scored"), "progress": str(store / "progress")})

    run()
    # as after a crash: batch 1 was written, but its end was not
    (store / "progress" / "commits" / "1").unlink()
    (store / "progress" / "commits" / ".1.crc").unlink(missing_ok=True)
    shutil.copy(store / "arriving" / "1.parquet", store / "arriving" / "later.parquet")
    run()
    scored = pd.concat(
        pd.read_parquet(folder).assign(batch=folder.name) for folder in sorted((store / "scored").glob("batch_id=*"))
    )
    assert scored.groupby("batch").size().to_dict() == {"batch_id=0": 10, "batch_id=1": 10, "batch_id=2": 10}
    assert sorted(scored[scored["batch"] != "batch_id=2"]["id"]) == list(range(20))
    assert scored["prediction"].notna().all()
