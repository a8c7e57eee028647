"""A causal torch network behind the interface of a decoder: with its own cache, no gradients, in eval mode."""

from inspect import signature

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from mlflow_llmops.engines import Reader, positions
from mlflow_llmops.models.torch_runner import TorchRunner


class TorchDecoder(TorchRunner):
    """Texts at once as any network, or word by word."""

    def begin(self) -> Reader:
        self.net.eval()
        known = signature(self.net.forward).parameters
        return TorchReader(self.net, known.keys()) if "past_key_values" in known else RereadingReader(self)


class TorchReader:
    """A batch with transformers' cache."""

    def __init__(self, net: PreTrainedModel, known) -> None:
        self.net, self.known, self.cache = net, known, DynamicCache(config=net.config)

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "position_ids" in self.known:
            given["position_ids"] = positions(attention_mask, input_ids.shape[1])
        with torch.inference_mode():
            if rows is not None:
                self.cache.reorder_cache(torch.LongTensor(rows).to(self.net.device))  # type: ignore[arg-type]
            tensors = {name: torch.from_numpy(array).to(self.net.device) for name, array in given.items()}
            found = self.net(**tensors, past_key_values=self.cache, use_cache=True)
            logits: np.ndarray = found.logits.float().cpu().numpy()
        return logits


class RereadingReader:
    """For networks with a memory of another kind, or none: every step reads the whole text again."""

    def __init__(self, network: TorchDecoder) -> None:
        self.network, self.read = network, np.zeros((0, 0), dtype=np.int64)

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        before = self.read if rows is None else self.read[rows]
        self.read = np.concatenate([before, input_ids], axis=1) if before.size else input_ids
        logits = self.network({"input_ids": self.read, "attention_mask": attention_mask})
        return logits[:, -input_ids.shape[1] :]
