"""The scorer of a text model: its network under the token budget of its artifact or its kind."""

from mlflow_llmops.batching.plan import TOKEN_BUDGET
from mlflow_llmops.batching.scorer import TextScorer
from mlflow_llmops.models.text_model import TextModel


def scorer_of(model: TextModel) -> TextScorer:
    """Ready to score; the engine of an exported model is opened on first use and kept by the model."""
    found = model.artifact.token_budget if model.folder is not None else 0
    budget = found or TOKEN_BUDGET[model.kind]
    return TextScorer(model.encoder, model.run, model.max_length, model.pad_id, budget)
