"""A text model: what every method takes and gives."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mlflow_llmops.engines import open_decoder, open_engine
from mlflow_llmops.engines.artifact import CHAT, TOKENIZER, ExportedArtifact
from mlflow_llmops.errors import ModelError
from mlflow_llmops.models.torch_decoder import TorchDecoder
from mlflow_llmops.models.torch_runner import TorchRunner


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
    stock: bool = True
    """Its class can hold the network: one whose layers fit no class is never saved, only exported."""

    @property
    def network(self) -> PreTrainedModel:
        """The torch network. Raises TypeError for an exported model, which has none."""
        if self.net is None:
            raise TypeError(f"a {self.kind} model has no torch network")
        return self.net

    @property
    def brings_code(self) -> bool:
        """Its class, or its tokenizer's, is Python code that came with it, and is saved with it."""
        configs = (getattr(self.net, "config", None), getattr(self.net, "generation_config", None))
        mapped = any(getattr(config, "auto_map", None) for config in configs)
        return mapped or bool(self.tokenizer.init_kwargs.get("auto_map"))

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

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end what a causal model writes."""
        if self.net is None:
            return self.artifact.end_ids
        ends = getattr(getattr(self.net, "generation_config", None), "eos_token_id", None)
        return (ends,) if isinstance(ends, int) else tuple(ends or ())

    @cached_property
    def run(self) -> Any:
        """From padded token ids to logits: the network, or the engine of the exported graph; for causal models a
        decoder."""
        generates = self.task == "text-generation"
        if self.folder is not None:
            return (open_decoder if generates else open_engine)(self.kind, self.folder)
        if generates:
            return TorchDecoder(self.network)
        return TorchRunner(torch.compile(self.network, dynamic=True) if self.compiled else self.network)

    def with_net(self, net: PreTrainedModel, **changes: Any) -> "TextModel":
        """The same model around another network."""
        return replace(self, net=net, **changes)

    def save(self, folder: Path) -> None:
        """Write a torch model as plain `from_pretrained` reads it (safetensors), with its tokenizer.

        Raises ModelError for a network that it would read as another one.
        """
        self.check_stock()
        self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def check_stock(self) -> None:
        """Raises ModelError for a network that no stock class holds."""
        if not self.stock:
            raise ModelError(
                f"the layers of this {type(self.network).__name__} fit its class no more, so it cannot be saved as "
                "one; export it"
            )

    def save_encoder(self, folder: Path) -> None:
        """Write `tokenizer.json` and the chat template alone, for workers without transformers."""
        self.encoder.save(str(folder / TOKENIZER))
        template = self.tokenizer.chat_template
        if isinstance(template, str):
            tokens = {name: str(token) for name, token in self.tokenizer.special_tokens_map.items()}
            stored = json.dumps({"template": template, "tokens": tokens})
            (folder / CHAT).write_text(stored, encoding="utf-8")


def count_parameters(net: PreTrainedModel) -> tuple[int, int]:
    """All parameters, and those that are not zero; shared ones count once."""
    parameters = [p.dequantize() if hasattr(p, "qdata") else p for p in net.parameters()]  # of torchao
    return sum(p.numel() for p in parameters), sum(int(torch.count_nonzero(p)) for p in parameters)
