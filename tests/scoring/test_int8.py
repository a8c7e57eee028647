"""int8 through a job: a score moves with its batch-mates by no more than the run that made the model says."""

import numpy as np
import pandas as pd
import pytest

from mlflow_llmops import names
from mlflow_llmops.flavors import exported_text
from mlflow_llmops.measure.batch_drift import NO_DRIFT, batch_drift
from mlflow_llmops.methods.table import build
from mlflow_llmops.scoring import score

pytestmark = pytest.mark.spark


@pytest.mark.slow
@pytest.mark.parametrize("method", ["int8_static", "int8_dynamic"])
def test_scores_stay_within_the_drift_that_is_stated(spark, tmp_path, tiny_model, tiny_texts, method):
    (tmp_path / "made").mkdir()
    made = build(f"quantize.{method}", {}).apply(tiny_model, tiny_texts, tmp_path / "made")
    exported_text.save_model(made.folder, tmp_path / "model")
    texts = list(tiny_texts.test.texts[:64])
    measured = batch_drift(made, texts)
    stated = max(NO_DRIFT, measured[names.BATCH_DRIFT] + measured[names.PADDING_DRIFT])
    predictor = exported_text.load_model(str(tmp_path / "model"))
    alone = np.array([predictor.predict([text])["score"][0] for text in texts])
    frame = spark.createDataFrame(pd.DataFrame({"place": range(len(texts)), "text": texts}))
    moved = []
    for dealt in (frame.coalesce(1), frame.repartition(2), frame.repartition(16)):
        rows = sorted(score(dealt, str(tmp_path / "model")).collect(), key=lambda row: row["place"])
        moved.append(np.abs(np.array([row["prediction"]["score"] for row in rows]) - alone).max())
    assert max(moved) <= stated
