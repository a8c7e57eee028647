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
        ParamSchema(  # the fields of `batching.decoding.Decoding`
            [
                ParamSpec("max_new_tokens", "long", NEW_TOKENS),
                ParamSpec("temperature", "double", 0.0),  # 0 takes the likeliest token each time
                ParamSpec("top_p", "double", 1.0),
                ParamSpec("stop", "string", [], shape=(-1,)),
                ParamSpec("seed", "long", 0),
            ]
        ),
    ),
}
RESULT_TYPES = {"text-classification": f"struct<{LABEL}: string, {SCORE}: double>", "text-generation": "string"}
"""The same for `spark_udf`."""
