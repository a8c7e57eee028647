"""How much the network's answers move when one layer alone is quantized: measured once for a model and its data."""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import kl_div, log_softmax
from tqdm.auto import tqdm

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.methods import _session
from mlflow_llmops.methods._calibration import calibration_texts, tensors
from mlflow_llmops.methods._fake_quantize import INT8, Rounding, fake_quantized, input_ranges
from mlflow_llmops.methods._layers import weighted_layers
from mlflow_llmops.methods._teacher import answers_key
from mlflow_llmops.models.text_model import TextModel

FILE = "sensitivity.json"
TEXTS = 64
"""Train texts that it is measured on."""


def sensitivities(model: TextModel, data: Splits, seed: int, rounding: Rounding = INT8) -> dict[str, float]:
    """The Kullback-Leibler divergence, in nats, from the network's answers to those with that layer rounded, its mean
    over train texts; most sensitive first.

    Within a run that keeps things, it comes from the run's memory where an earlier one measured it.
    """
    session = _session.current()
    texts = calibration_texts(data, TEXTS, seed)
    of = f"{rounding.bits}-{'inputs' if rounding.inputs else 'weights'}"
    key = f"sensitivity-{answers_key(model, texts, 0)}-{of}"
    kept = session.recall(key)
    if kept is not None:
        found: dict[str, float] = json.loads((kept / FILE).read_text(encoding="utf-8"))
        return found
    found = _measured(model, tensors(model, texts.texts), rounding)
    with tempfile.TemporaryDirectory(prefix="llmops-sensitivity-") as folder:
        (Path(folder) / FILE).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        session.keep(key, Path(folder))
    return found


def _measured(model: TextModel, batches: list[dict[str, torch.Tensor]], rounding: Rounding) -> dict[str, float]:
    net = model.network.eval()
    layers = list(weighted_layers(net))
    ranges = input_ranges(net, batches, layers)
    with torch.no_grad():
        expected = [log_softmax(net(**batch).logits, dim=-1) for batch in batches]
        moved = {}
        for layer in tqdm(layers, desc="sensitivity of layers"):
            with fake_quantized(net, {layer: ranges[layer]}, rounding):
                got = [log_softmax(net(**batch).logits, dim=-1) for batch in batches]
            apart = [
                kl_div(now, was, log_target=True, reduction="none").sum(-1).mean().item()
                for was, now in zip(expected, got, strict=True)
            ]
            # a weight beyond what is rounded to makes answers no numbers at all
            moved[layer] = float(np.nan_to_num(np.mean(apart), nan=np.inf))
    return dict(sorted(moved.items(), key=lambda item: -item[1]))
