"""Run an exported graph without torch: one file a runtime, one small protocol.

`open_engine("onnx", folder)` gives a callable from named int64 arrays of shape (texts, tokens) to one float32 array
of logits, (texts, labels) for classification.
"""

from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from mlflow_llmops.engines.artifact import DESCRIPTION, ExportedArtifact
from mlflow_llmops.errors import ModelError

Arrays = dict[str, np.ndarray]


class Engine(Protocol):
    """A model that is ready to run. `threads` is fixed when it is built."""

    input_names: tuple[str, ...]

    def __call__(self, inputs: Arrays) -> np.ndarray: ...


ENGINES = {
    "onnx": "mlflow_llmops.engines.onnxruntime:OnnxRuntimeEngine",
    "openvino": "mlflow_llmops.engines.openvino:OpenVinoEngine",
}
"""From the kind of an artifact to the engine that runs it."""


def open_engine(kind: str, folder: Path, threads: int | None = None) -> Engine:
    """Load the graph in `folder` with the settings that its description has; `threads=None` leaves the choice to
    `default_threads`."""
    if kind not in ENGINES:
        raise ModelError(f"no engine runs artifacts of kind {kind!r}; there are: {', '.join(ENGINES)}")
    module, _, name = ENGINES[kind].partition(":")
    settings = ExportedArtifact.read(folder).runtime if (folder / DESCRIPTION).is_file() else {}
    engine: Engine = getattr(import_module(module), name)(folder, threads or default_threads(), **settings)
    return engine


def default_threads() -> int:
    """The cores that this process may use: OMP_NUM_THREADS where it is set (Spark sets it per task), else its affinity.

    onnxruntime ignores OMP_NUM_THREADS and takes every core, so each engine is told.
    """
    import os

    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
