"""A text model: what every method takes and gives."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mlflow_llmops.engines import Arrays, open_engine
from mlflow_llmops.engines.artifact import TOKENIZER, ExportedArtifact


@dataclass(frozen=True)
class TextModel:
    """A network (`kind` torch) or the folder of an exported graph (`kind` onnx or openvino), with its tokenizer."""

    task: str
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    labels: tuple[str, ...] = ()
    net: PreTrainedModel | None = None
    folder: Path | None = None
    kind: str = "torch"
    compiled: bool = False
    """The network is run by torch.compile."""
    fresh: bool = False
    """The network's weights are random: it was never trained."""

    @property
    def network(self) -> PreTrainedModel:
        """The torch network. Raises TypeError for an exported model, which has none."""
        if self.net is None:
            raise TypeError(f"a {self.kind} model has no torch network")
        return self.net

    @property
    def artifact(self) -> ExportedArtifact:
        """The description of an exported model's folder."""
        if self.folder is None:
            raise TypeError("a torch model has no exported artifact")
        return ExportedArtifact.read(self.folder)

    @property
    def encoder(self) -> Tokenizer:
        """A copy of the fast tokenizer, without torch and without transformers around it."""
        return Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @cached_property
    def run(self) -> "TorchRunner | Any":
        """From padded token ids to logits: the network, or the engine of the exported graph."""
        if self.folder is not None:
            return open_engine(self.kind, self.folder)
        return TorchRunner(torch.compile(self.network, dynamic=True) if self.compiled else self.network)

    def with_net(self, net: PreTrainedModel, **changes: Any) -> "TextModel":
        """The same model around another network."""
        return replace(self, net=net, **changes)

    def save(self, folder: Path) -> None:
        """Write a torch model as plain `from_pretrained` reads it (safetensors), with its tokenizer."""
        self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def save_encoder(self, folder: Path) -> None:
        """Write `tokenizer.json` alone, for workers without transformers."""
        self.encoder.save(str(folder / TOKENIZER))


class TorchRunner:
    """A torch network behind the interface of an engine: arrays in, logits out, no gradients, eval mode."""

    input_names = ("input_ids", "attention_mask")

    def __init__(self, net: Any) -> None:
        self.net = net

    def __call__(self, inputs: Arrays) -> np.ndarray:
        if self.net.training:
            self.net.eval()
        device = self.net.device
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(inputs[name]).to(device) for name in self.input_names}
            logits: np.ndarray = self.net(**tensors).logits.float().cpu().numpy()
        return logits


def count_parameters(net: PreTrainedModel) -> tuple[int, int]:
    """All parameters, and those that are not zero; shared ones count once."""
    parameters = list(net.parameters())
    return sum(p.numel() for p in parameters), sum(int(torch.count_nonzero(p)) for p in parameters)
