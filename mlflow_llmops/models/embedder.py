"""A text's vector from an encoder of ours: the mean of its last hidden states."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from mlflow_llmops.errors import ModelError
from mlflow_llmops.models.load import LONGEST, UNREADABLE, code_in
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
    """Write the network of a torch model without its head."""
    model.network.base_model.save_pretrained(folder)  # type: ignore[operator]
    model.tokenizer.save_pretrained(folder)


def copy_embedder(source: str, folder: Path) -> None:
    """Write the encoder of a local folder or a Hugging Face id. Raises ModelError where it cannot be read."""
    check_no_own_code(Path(source), source)
    try:
        AutoModel.from_pretrained(source).save_pretrained(folder)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    except UNREADABLE as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ModelError(f"embeddings={source} cannot be read: {said}; check the path or the id") from error


def check_no_own_code(folder: Path, named: str) -> None:
    """Raises ModelError for an encoder that brings Python code: a chain would read it as another network."""
    if code := code_in(folder):
        raise ModelError(
            f"embeddings={named} brings Python code of its own (auto_map in its {code}), which no chain runs; "
            "give another encoder"
        )
