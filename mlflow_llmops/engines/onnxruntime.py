"""ONNX graphs through onnxruntime."""

from pathlib import Path

import numpy as np
import onnxruntime

from mlflow_llmops.engines import Arrays

GRAPH = "model.onnx"


class OnnxRuntimeEngine:
    """One session; `run` may be called from several threads at once."""

    def __init__(self, folder: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(folder / GRAPH), options, providers=["CPUExecutionProvider"])
        self.input_names = tuple(port.name for port in self.session.get_inputs())

    def __call__(self, inputs: Arrays) -> np.ndarray:
        feed = {name: inputs[name] for name in self.input_names}
        return np.asarray(self.session.run(None, feed)[0])
