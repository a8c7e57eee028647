"""One signature a task, so that a compressed version is a drop-in for the one before it."""

from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

LABEL, SCORE = "label", "score"

SIGNATURES = {
    # The column has no name, as MLflow infers it: a list, a Series and a column of any name all fit.
    "text-classification": ModelSignature(
        Schema([ColSpec("string")]), Schema([ColSpec("string", LABEL), ColSpec("double", SCORE)])
    ),
}
RESULT_TYPES = {"text-classification": f"struct<{LABEL}: string, {SCORE}: double>"}
"""The same for `spark_udf`."""
