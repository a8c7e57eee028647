"""OpenVINO IR through openvino's CPU plugin."""

from pathlib import Path

import numpy as np
import openvino

from mlflow_llmops.engines import Arrays

GRAPH = "openvino_model.xml"


class OpenVinoEngine:
    """One compiled model, compiled for throughput of whole batches on `threads` cores."""

    def __init__(self, folder: Path, threads: int, options: dict[str, str] | None = None) -> None:
        core = openvino.Core()
        config = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, all threads on it
            # f32, never a silent bf16: what was measured on one CPU must hold on the next
            "INFERENCE_PRECISION_HINT": "f32",
            **(options or {}),
        }
        self.compiled = core.compile_model(core.read_model(str(folder / GRAPH)), "CPU", config)
        self.idle: list[openvino.InferRequest] = []
        self.input_names = tuple(port.get_any_name() for port in self.compiled.inputs)

    def __call__(self, inputs: Arrays) -> np.ndarray:
        # One for each call in progress, as threads may call at once; used again, for each has memory of its own.
        try:
            request = self.idle.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        request.infer({name: inputs[name] for name in self.input_names})
        logits = np.array(request.get_output_tensor(0).data)
        self.idle.append(request)
        return logits
