"""What is served is loaded first, and what cannot be is said in one line."""

import mlflow
import pytest

from mlflow_llmops.errors import ModelError
from mlflow_llmops.serving.version import load_version


def test_a_library_that_is_not_there_is_named(store):
    """As torch in the image that serves graphs alone."""
    (store / "weights").write_text("1")
    mlflow.pyfunc.save_model("lost", loader_module="a_library_of_somebody", data_path="weights")
    with pytest.raises(ModelError, match=r"model=\S+/lost needs a_library_of_somebody, which is not installed here"):
        load_version(str(store / "lost"))
