"""ONNX graphs through onnxruntime."""

from pathlib import Path

import numpy as np
import onnxruntime

from mlflow_llmops.engines import Arrays

GRAPH = "model.onnx"
LEVELS = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
"""What onnxruntime may do to a graph when it loads it."""


class OnnxRuntimeEngine:
    """One session; `run` may be called from several threads at once."""

    def __init__(self, folder: Path, threads: int, optimization: str = "all") -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = LEVELS[optimization]
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(folder / GRAPH), options, providers=["CPUExecutionProvider"])
        self.input_names = tuple(port.name for port in self.session.get_inputs())

    def __call__(self, inputs: Arrays) -> np.ndarray:
        feed = {name: inputs[name] for name in self.input_names}
        return np.asarray(self.session.run(None, feed)[0])
