"""One function a verb: they compose the floors below and decide nothing themselves.

This table is what the command line and MLproject are made from; nothing is imported until a verb is used.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Where a verb's function is, what it does in one line, and whether it takes the options of a method."""

    path: str
    text: str
    has_methods: bool = False


_COMPRESS = "mlflow_llmops.steps.compress:compress"

STEPS = {
    "main": Step(
        "mlflow_llmops.steps.main:main",
        "Teacher, compression, comparison, promotion and a scored table in one run.",
    ),
    "finetune": Step(_COMPRESS, "Train a model on labels, as teacher and baseline of what follows.", True),
    "distill": Step(_COMPRESS, "Train a smaller student to answer as its teacher, the model, does.", True),
    "prune": Step(_COMPRESS, "Cut what contributes least, and train the rest to win quality back.", True),
    "factorize": Step(_COMPRESS, "Write matrices as products of narrower ones, and run the result as a graph.", True),
    "quantize": Step(_COMPRESS, "Store weights, and activations where the method says so, in fewer bits.", True),
    "export": Step(_COMPRESS, "Move the model to a faster runtime at full precision.", True),
    "search": Step(
        "mlflow_llmops.steps.search:search", "Find the chain of methods that keeps your limits, within a time budget."
    ),
    "compare": Step("mlflow_llmops.steps.compare:compare", "Measure registered versions side by side in one run."),
    "promote": Step("mlflow_llmops.steps.promote:promote", "Take a version past the gate to Staging or Production."),
    "rollback": Step("mlflow_llmops.steps.rollback:rollback", "Give a place back to the version that held it before."),
    "history": Step("mlflow_llmops.steps.history:history", "Print who held which place, from when to when."),
    "doctor": Step(
        "mlflow_llmops.steps.doctor:doctor", "Find stages, aliases and tags that differ from the record, and mend them."
    ),
    "score": Step("mlflow_llmops.steps.score:score", "Score a table with a registered version through Spark."),
    "serve": Step("mlflow_llmops.steps.serve:serve", "Serve a version to OpenAI's clients and MLflow's."),
    "register_openai": Step(
        "mlflow_llmops.steps.register_openai:register_openai",
        "Register a prompt to an OpenAI-compatible endpoint as a model.",
    ),
    "register_chain": Step(
        "mlflow_llmops.steps.register_chain:register_chain",
        "Register a LangChain chain: prompt to model, or answers from documents.",
    ),
}
