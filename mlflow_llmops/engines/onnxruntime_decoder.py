"""Causal models as ONNX graphs that take the keys and values so far and give them back longer."""

import numpy as np
import onnxruntime

from mlflow_llmops.engines import Arrays, positions
from mlflow_llmops.engines.onnxruntime import OnnxRuntimeEngine

PAST, PRESENT = "input.", "output."
"""The same keys or values before and after a step differ in this prefix alone."""


class OnnxRuntimeDecoder(OnnxRuntimeEngine):
    """One session; `run` may be called from several threads at once."""

    def begin(self) -> "OnnxRuntimeReader":
        return OnnxRuntimeReader(self.session)

    def __call__(self, inputs: Arrays) -> np.ndarray:
        return self.begin()(inputs["input_ids"], inputs["attention_mask"])


class OnnxRuntimeReader:
    """The keys and values of one batch, kept as the runtime's own arrays: they are not copied between steps."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session
        self.outputs = [port.name for port in session.get_outputs()]
        self.plain = {port.name for port in session.get_inputs() if not port.name.startswith(PAST)}
        self.cache: dict[str, onnxruntime.OrtValue] = {}

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        if not self.cache:
            self.cache = self._empty(len(input_ids))
        elif rows is not None:
            self.cache = {name: _value(past.numpy()[rows]) for name, past in self.cache.items()}
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        given["position_ids"] = positions(attention_mask, input_ids.shape[1])
        feed = {name: _value(array) for name, array in given.items() if name in self.plain}
        found = dict(zip(self.outputs, self.session.run_with_ort_values(self.outputs, feed | self.cache), strict=True))
        self.cache = {name: found[PRESENT + name.removeprefix(PAST)] for name in self.cache}
        logits: np.ndarray = found[self.outputs[0]].numpy()
        return logits

    def _empty(self, texts: int) -> dict[str, onnxruntime.OrtValue]:
        """Keys and values of no token; (texts, heads, 0, size of a head)."""
        ports = [port for port in self.session.get_inputs() if port.name.startswith(PAST)]
        return {
            port.name: _value(np.zeros((texts, int(port.shape[1]), 0, int(port.shape[3])), np.float32))
            for port in ports
        }


def _value(array: np.ndarray) -> onnxruntime.OrtValue:
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
