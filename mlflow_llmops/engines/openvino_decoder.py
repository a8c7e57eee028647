"""Causal models as stateful OpenVINO graphs: keys and values stay inside the runtime from one step to the next."""

from pathlib import Path

import numpy as np
import openvino

from mlflow_llmops.engines import Arrays, positions
from mlflow_llmops.engines.openvino import OpenVinoEngine

ROWS = "beam_idx"
"""The graph's input that says which texts' state each row goes on with."""


class OpenVinoDecoder(OpenVinoEngine):
    """One compiled model; each batch has an infer request of its own, with its own state."""

    def __init__(self, folder: Path, threads: int) -> None:
        # keys and values too: the plugin would round them to 8 bits
        super().__init__(folder, threads, {"KV_CACHE_PRECISION": "f32"})

    def begin(self) -> "OpenVinoReader":
        return OpenVinoReader(self.compiled, self.input_names)

    def __call__(self, inputs: Arrays) -> np.ndarray:
        return np.array(self.begin()(inputs["input_ids"], inputs["attention_mask"]))


class OpenVinoReader:
    """An infer request with its state."""

    def __init__(self, compiled: openvino.CompiledModel, input_names: tuple[str, ...]) -> None:
        self.request, self.input_names = compiled.create_infer_request(), input_names

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        given["position_ids"] = positions(attention_mask, input_ids.shape[1])
        given[ROWS] = (np.arange(len(input_ids)) if rows is None else rows).astype(np.int32)
        self.request.infer({name: given[name] for name in self.input_names})
        logits: np.ndarray = self.request.get_output_tensor(0).data
        return logits
