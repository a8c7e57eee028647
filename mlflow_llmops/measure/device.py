"""What a network takes of the GPU that it lies on: time by CUDA's own events, peak memory, energy by NVML.

Written against the documentation of torch and NVML and never run on a GPU: no machine of the authors has one.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import torch

from mlflow_llmops import names
from mlflow_llmops.measure.intervals import quantile_interval
from mlflow_llmops.measure.measurement import Measurements
from mlflow_llmops.measure.size import MIB
from mlflow_llmops.models.text_model import TextModel

CALLS = 72
"""As many as a 95th percentile needs for an upper end."""


def measure_device(
    models: Mapping[str, TextModel], texts: Sequence[str], scores: Mapping[str, Callable[[Sequence[str]], object]]
) -> dict[str, Measurements]:
    """Of each model whose network lies on a GPU; nothing of the others."""
    return {
        label: _on_gpu(model.net.device, texts, scores[label])
        if model.net is not None and model.net.device.type == "cuda"
        else {}
        for label, model in models.items()
    }


def _on_gpu(device: torch.device, texts: Sequence[str], score: Callable[[Sequence[str]], object]) -> Measurements:
    """One text after the other; then all of them, for the peak of memory and the energy."""
    with torch.cuda.device(device):
        score(texts[:1])
        milliseconds = []
        for number in range(CALLS):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            begin.record()
            score([texts[number % len(texts)]])
            end.record()
            end.synchronize()
            milliseconds.append(begin.elapsed_time(end))
        torch.cuda.reset_peak_memory_stats()
        before = _millijoules(torch.cuda.current_device())
        score(texts)
        torch.cuda.synchronize()
        after = _millijoules(torch.cuda.current_device())
        taken = np.array(milliseconds)
        measured: Measurements = {
            names.DEVICE_LATENCY_P50: quantile_interval(taken, 0.5),
            names.DEVICE_LATENCY_P95: quantile_interval(taken, 0.95),
            names.DEVICE_PEAK_MEMORY: torch.cuda.max_memory_allocated() / MIB,
        }
        if before is not None and after is not None:
            measured[names.DEVICE_JOULES_PER_TEXT] = (after - before) / 1000 / len(texts)
    return measured


def _millijoules(index: int) -> int | None:
    """Of the whole GPU since its driver was loaded; None without NVML's Python package or such a counter."""
    if find_spec("pynvml") is None:
        return None
    pynvml = import_module("pynvml")
    try:
        pynvml.nvmlInit()
        # by its UUID: torch and NVML number GPUs differently where CUDA_VISIBLE_DEVICES is set
        uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByUUID(uuid)))
    except pynvml.NVMLError:
        return None
