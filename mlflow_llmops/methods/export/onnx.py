"""Export to ONNX in fp32."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import onnx_ir

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.engines.onnxruntime import GRAPH
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods._exported import EXPORTER, Exporter, check_equal, chosen, export, exporters
from mlflow_llmops.methods.export._optimum import graph_of
from mlflow_llmops.methods.method import Method
from mlflow_llmops.models.text_model import TextModel


@dataclass(frozen=True)
class Onnx(Method):
    """The same network as an ONNX graph, run by onnxruntime: another runtime, no compression."""

    gives: ClassVar[str] = "onnx"
    tasks: ClassVar[tuple[str, ...]] = ("text-classification", "text-generation")
    smaller: ClassVar[bool] = False

    fusions: Annotated[bool, "join nodes into onnxruntime's own; no other runtime reads the graph then"] = False
    optimization: Annotated[
        Literal["none", "basic", "extended", "all"], "what onnxruntime may do to the graph when it loads it"
    ] = "all"
    exporter: Annotated[Exporter | None, EXPORTER] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fusions and chosen(self.exporter) == "optimum":
            raise ConfigError("fusions=True: exporter=optimum joins no nodes; onnxruntime does when it loads a graph")

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        exported = to_onnx(
            model,
            folder,
            "fp32",
            ort_fusions="cpu" if self.fusions else None,
            runtime={"optimization": self.optimization},
            exporter=self.exporter,
        )
        check_equal(model, exported)
        return exported


def to_onnx(
    model: TextModel,
    folder: Path,
    precision: str,
    quantized: Callable[[Any], Any] | None = None,
    runtime: dict[str, str] | None = None,
    exporter: Exporter | None = None,
    **options: Any,
) -> TextModel:
    """Trace `model` and write the graph into `folder`, its weights beside it. `quantized` makes another graph of it
    first; `options` are transformers' `OnnxConfig`'s, `runtime` the engine's settings."""

    def write(net: Any, sample: dict[str, Any]) -> None:
        if chosen(exporter) == "optimum":
            graph = graph_of(net, model.task)
        else:
            own = exporters()
            graph = own.OnnxExporter().export(net, sample, own.OnnxConfig(dynamic=True, **options)).program
        if quantized is not None:
            graph = quantized(graph)
        onnx_ir.save(graph, str(folder / GRAPH), external_data=f"{GRAPH}.data")

    return export(model, folder, "onnx", precision, write, runtime)


def saved_weights(folder: Path) -> dict[str, np.ndarray]:
    """`weights_of` the graph in `folder`."""
    return weights_of(onnx_ir.load(str(folder / GRAPH)))


def weights_of(graph: Any) -> dict[str, np.ndarray]:
    """The constant that each node multiplies with, by the node's name."""
    found = {}
    for node in graph.graph:
        weight = node.inputs[1] if node.op_type in ("MatMul", "Gemm") else None
        turned = None if weight is None else weight.producer()
        if turned is not None and turned.op_type == "Transpose":  # an output layer that shares the embeddings' table
            weight = turned.inputs[0]
        if weight is not None and weight.is_initializer():
            found[node.name] = weight.const_value.numpy()
    return found
