"""Run an exported graph without torch: one file a runtime, one small protocol.

`open_engine("onnx", folder)` gives a callable from named int64 arrays of shape (texts, tokens) to one float32 array
of logits, (texts, labels) for classification.
"""

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mlflow_llmops.engines.artifact import DESCRIPTION, ExportedArtifact
from mlflow_llmops.errors import ModelError

Arrays = dict[str, np.ndarray]


class Engine(Protocol):
    """A model that is ready to run. `threads` is fixed when it is built."""

    input_names: tuple[str, ...]

    def __call__(self, inputs: Arrays) -> np.ndarray: ...


class Reader(Protocol):
    """A batch of texts in progress, with the keys and values of all that it has read, so that a token costs one step.

    Takes the ids of further tokens, (texts, new), and the mask over those before and these, (texts, all); padding
    stands on the left. `rows` are the positions of the texts that go on, where others are finished. Gives logits,
    (texts, new, words), which may be overwritten by the next call.
    """

    def __call__(
        self, input_ids: np.ndarray, attention_mask: np.ndarray, rows: np.ndarray | None = None
    ) -> np.ndarray: ...


class Decoder(Engine, Protocol):
    """A causal model: whole texts at once as any engine, or word by word through a reader."""

    def begin(self) -> Reader: ...


ENGINES = {
    "onnx": "mlflow_llmops.engines.onnxruntime:OnnxRuntimeEngine",
    "openvino": "mlflow_llmops.engines.openvino:OpenVinoEngine",
}
"""From the kind of an artifact to the engine that runs it."""
DECODERS = {
    "onnx": "mlflow_llmops.engines.onnxruntime_decoder:OnnxRuntimeDecoder",
    "openvino": "mlflow_llmops.engines.openvino_decoder:OpenVinoDecoder",
}
"""The same for causal models."""


def open_engine(kind: str, folder: Path, threads: int | None = None) -> Engine:
    """Load the graph in `folder` with the settings that its description has; `threads=None` leaves the choice to
    `default_threads`."""
    engine: Engine = _open(ENGINES, kind, folder, threads)
    return engine


def open_decoder(kind: str, folder: Path, threads: int | None = None) -> Decoder:
    """The same for the graph of a causal model with its key-value cache."""
    decoder: Decoder = _open(DECODERS, kind, folder, threads)
    return decoder


def positions(attention_mask: np.ndarray, new: int) -> np.ndarray:
    """Where in its text each of the last `new` tokens stands, (texts, new); padding does not count."""
    counted: np.ndarray = np.maximum(attention_mask.cumsum(axis=1) - 1, 0)[:, -new:]
    return counted


def _open(table: dict[str, str], kind: str, folder: Path, threads: int | None) -> Any:
    if kind not in table:
        raise ModelError(f"no engine runs artifacts of kind {kind!r}; there are: {', '.join(table)}")
    module, _, name = table[kind].partition(":")
    settings = ExportedArtifact.read(folder).runtime if (folder / DESCRIPTION).is_file() else {}
    return getattr(import_module(module), name)(folder, threads or default_threads(), **settings)


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
