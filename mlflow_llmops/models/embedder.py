"""A text's vector from an encoder of ours: the mean of its last hidden states."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from mlflow_llmops.errors import ModelError
from mlflow_llmops.models.load import LONGEST, UNREADABLE
from mlflow_llmops.models.text_model import TextModel


class MeanStates:
    """A network without its head, from padded token ids to a vector for each text."""

    def __init__(self, folder: Path) -> None:
        self.network = AutoModel.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.encoder = tokenizer.backend_tokenizer
        self.pad_id = int(tokenizer.pad_token_id or 0)
        room = getattr(self.network.config, "max_position_embeddings", None) or LONGEST
        self.max_length = int(min(tokenizer.model_max_length, room, LONGEST))

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """From `input_ids` and `attention_mask`, (texts, tokens), to (texts, width), float32."""
        return mean_states(self.network, inputs)


def mean_states(network: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The mean of the last hidden states of a network without its head, padding left out, (texts, width)."""
    given = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.inference_mode():
        states = network(**given).last_hidden_state
    mask = given["attention_mask"].unsqueeze(-1)
    mean: np.ndarray = ((states * mask).sum(1) / mask.sum(1)).float().numpy()
    return mean


def save_embedder(model: TextModel, folder: Path) -> None:
    """Write the network of a text model without its head.

    Raises ModelError for an exported graph, which gives its answers and not what they come from.
    """
    if model.net is None:
        raise ModelError(
            f"embeddings: a graph of kind {model.kind} gives its answers alone; give the torch version that it was "
            "made from"
        )
    model.network.base_model.save_pretrained(folder)  # type: ignore[operator]
    model.tokenizer.save_pretrained(folder)


def copy_embedder(source: str, folder: Path) -> None:
    """Write the encoder of a local folder or a Hugging Face id. Raises ModelError where it cannot be read."""
    try:
        AutoModel.from_pretrained(source).save_pretrained(folder)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    except UNREADABLE as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ModelError(f"embeddings={source} cannot be read: {said}; check the path or the id") from error
