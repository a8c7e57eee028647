"""Methods work in fp32, whatever type the weights were stored in, and so does the baseline beside them."""

from copy import deepcopy
from dataclasses import replace

import torch

from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.tracking.loaded import LoadedModel


def in_full_precision(source: LoadedModel) -> tuple[LoadedModel, str]:
    """The model with its weights in fp32, to be saved and asked anew, and what a user should know of that.

    A processor without arithmetic in 16 bits emulates it: a baseline in bfloat16 would be slow for no merit of the
    candidate's. One that is in fp32, quantized or exported comes back as it is, with nothing to say.
    """
    stored = _type(source.model)
    if stored is None or stored == torch.float32:
        return source, ""
    model = source.model.with_net(deepcopy(source.model.network).float())
    said = (
        f"the weights are stored in {str(stored).removeprefix('torch.')}; the method and its baseline have them in fp32"
    )
    return replace(source, model=model, folder=None, answers=None), said


def _type(model: TextModel) -> torch.dtype | None:
    """None where there is no torch network, or one whose weights are packed."""
    if model.net is None or getattr(model.net.config, "quantization_config", None) is not None:
        return None
    found: torch.dtype = model.net.dtype
    return found
