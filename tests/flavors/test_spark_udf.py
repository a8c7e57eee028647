"""MLflow's own `spark_udf` over our versions: unchanged code of a user, in which a null stays a null."""

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from mlflow_llmops.errors import DataError
from mlflow_llmops.flavors.by_kind import save_text_model
from mlflow_llmops.tracking.signature import RESULT_TYPES

TEXTS = ["oven and butter", None, "", "   ", "the boat " * 3000, "a\0b", "oven and butter", "caf\u00e9 \U0001f600"]


@pytest.fixture(scope="module", params=["exported", "torch", "decoder"])
def saved(request, tiny_model, tiny_exported, tiny_decoder, tmp_path_factory):
    """A version of each kind in a folder, and its task."""
    model = {"exported": tiny_exported, "torch": tiny_model, "decoder": tiny_decoder}[request.param]
    folder = tmp_path_factory.mktemp(request.param) / "model"
    save_text_model(model, folder)
    return str(folder), model.task


@pytest.mark.spark
def test_each_row_gets_what_the_model_says_and_each_null_a_null(spark, saved):
    folder, task = saved
    model = mlflow.pyfunc.load_model(folder)
    frame = spark.createDataFrame(list(enumerate(TEXTS)), "place long, text string").coalesce(1)
    for given in (RESULT_TYPES[task], "string"):
        udf = mlflow.pyfunc.spark_udf(spark, folder, result_type=given)
        rows = frame.select("place", udf("text").alias("said")).orderBy("place").collect()
        said = [row["said"] if given == "string" else row["said"]["label"] for row in rows]
        alone = model.predict([text for text in TEXTS if text is not None])
        expected = list(alone if isinstance(alone, list) else alone["label"])
        assert said == [*expected[:1], None, *expected[1:]]
        if given != "string":
            assert [row["said"]["score"] is None for row in rows] == [text is None for text in TEXTS]
        empty = frame.where("text is null").union(frame.where("false"))
        assert [list(row) for row in empty.select(udf("text").alias("said")).collect()] in ([[None]], [[(None, None)]])


@pytest.mark.parametrize("given", [[b"oven"], pd.DataFrame({"text": [["a", "b"]]}), pd.Series([["a"], None])])
def test_what_is_no_text_is_told_and_no_null(saved, given):
    model = mlflow.pyfunc.load_model(saved[0])
    with pytest.raises(
        (DataError, MlflowException), match=r"row 0 holds (bytes|list|ndarray), and the model takes texts"
    ):
        model.get_raw_model().predict(given)
    assert model.predict(pd.DataFrame({"text": pd.Series([None, float("nan"), pd.NA], dtype=object)})) is not None
