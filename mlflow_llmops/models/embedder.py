"""A text's vector from an encoder of ours: the mean of its last hidden states."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from mlflow_llmops.batching.plan import TOKEN_BUDGET
from mlflow_llmops.batching.scorer import TextScorer
from mlflow_llmops.errors import ModelError
from mlflow_llmops.models.load import UNREADABLE
from mlflow_llmops.models.text_model import TextModel


class Embedder:
    """From texts to vectors of length 1; equal texts are encoded once, in batches of similar length."""

    def __init__(self, folder: Path) -> None:
        self.network = AutoModel.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        longest = min(tokenizer.model_max_length, getattr(self.network.config, "max_position_embeddings", 512), 512)
        encoder = tokenizer.backend_tokenizer
        self._scorer = TextScorer(encoder, self._mean, longest, tokenizer.pad_token_id or 0, TOKEN_BUDGET["torch"])

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, width), float32."""
        vectors = self._scorer.logits(texts)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        scaled: np.ndarray = vectors / np.maximum(lengths, 1e-12)
        return scaled

    def _mean(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        given = {name: torch.from_numpy(array) for name, array in inputs.items()}
        with torch.inference_mode():
            states = self.network(**given).last_hidden_state
        mask = given["attention_mask"].unsqueeze(-1)
        mean: np.ndarray = ((states * mask).sum(1) / mask.sum(1)).float().numpy()
        return mean


def save_embedder(model: TextModel, folder: Path) -> None:
    """Write the encoder of a text model without its head. Raises ModelError for an exported graph, which has only one
    output."""
    if model.net is None:
        raise ModelError(
            f"embeddings: a graph of kind {model.kind} gives its answers alone; give the torch "
            "version that it was made from"
        )
    model.network.base_model.save_pretrained(folder)  # type: ignore[operator]
    model.tokenizer.save_pretrained(folder)


def copy_embedder(source: str, folder: Path) -> None:
    """Write the encoder of a local folder or a Hugging Face id. Raises ModelError where it cannot be read."""
    try:
        AutoModel.from_pretrained(source).save_pretrained(folder)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    except UNREADABLE as error:
        raise ModelError(f"embeddings={source} cannot be read: {str(error).strip().splitlines()[0][:200]}") from error
