"""A torch network behind the interface of an engine."""

from typing import Any

import numpy as np
import torch

from mlflow_llmops.engines import Arrays


def use_threads(threads: int) -> None:
    """Let torch run on so many cores; for the whole process, as torch knows no other way."""
    torch.set_num_threads(threads)


class TorchRunner:
    """Arrays in, logits out, no gradients, eval mode."""

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
