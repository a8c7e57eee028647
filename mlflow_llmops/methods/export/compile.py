"""torch.compile as a runtime, for those who stay in torch."""

import shutil
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from mlflow_llmops.batching.scorer import pad
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ModelError
from mlflow_llmops.methods._exported import example_ids
from mlflow_llmops.methods.method import Method
from mlflow_llmops.models.text_model import TextModel


@dataclass(frozen=True)
class Compile(Method):
    """The same network, run by what torch.compile makes of it: measured, but no artifact. What is logged is the plain
    torch model, and whoever loads it compiles it again, which takes a C++ compiler and up to a minute."""

    compresses: ClassVar[bool] = False
    artifact: ClassVar[bool] = False
    smaller: ClassVar[bool] = False

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        compiled = model.with_net(deepcopy(model.network), compiled=True)
        if shutil.which("c++") is None and shutil.which("g++") is None and model.network.device.type == "cpu":
            raise ModelError("torch.compile needs a C++ compiler (g++) on this machine, and there is none; install one")
        try:
            for texts, tokens in ((2, 16), (8, 31), (1, 7)):  # shapes stay open after the second one that differs
                compiled.run(pad(example_ids(model, texts, min(tokens, model.max_length)), model.pad_id))
        except torch._dynamo.exc.TorchDynamoException as error:
            raise ModelError(f"torch.compile failed: {str(error).splitlines()[0][:200]}") from error
        return compiled
