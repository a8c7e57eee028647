"""One signature a task, so that a compressed version is a drop-in for the one before it."""

from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from mlflow_llmops.batching.plan import NEW_TOKENS

LABEL, SCORE = "label", "score"

SIGNATURES = {
    # The column has no name, as MLflow infers it: a list, a Series and a column of any name all fit.
    "text-classification": ModelSignature(
        Schema([ColSpec("string")]), Schema([ColSpec("string", LABEL), ColSpec("double", SCORE)])
    ),
    "text-generation": ModelSignature(
        Schema([ColSpec("string")]),
        Schema([ColSpec("string")]),
        # predict takes these as params, and their defaults go before what model_config says
        ParamSchema([ParamSpec("max_new_tokens", "long", NEW_TOKENS), ParamSpec("do_sample", "boolean", False)]),
    ),
}
RESULT_TYPES = {"text-classification": f"struct<{LABEL}: string, {SCORE}: double>", "text-generation": "string"}
"""The same for `spark_udf`."""
