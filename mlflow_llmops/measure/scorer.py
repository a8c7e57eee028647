"""The scorer of a text model: its network under the token budget that suits its kind."""

from mlflow_llmops.batching.plan import TOKEN_BUDGET
from mlflow_llmops.batching.scorer import TextScorer
from mlflow_llmops.models.text_model import TextModel


def scorer_of(model: TextModel) -> TextScorer:
    """Ready to score; the engine of an exported model is opened on first use and kept by the model."""
    return TextScorer(model.encoder, model.run, model.max_length, model.pad_id, TOKEN_BUDGET[model.kind])
