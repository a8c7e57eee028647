"""Export to OpenVINO IR in fp32."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import onnx_ir
import openvino

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.engines.openvino import GRAPH
from mlflow_llmops.errors import ModelError
from mlflow_llmops.methods._exported import EXPORTER, Exporter, check_equal, chosen, export, exporters
from mlflow_llmops.methods.export._optimum import graph_of
from mlflow_llmops.methods.method import Method
from mlflow_llmops.models.text_model import TextModel


@dataclass(frozen=True)
class OpenVino(Method):
    """The same network as an OpenVINO graph: another runtime, no compression."""

    gives: ClassVar[str] = "openvino"
    tasks: ClassVar[tuple[str, ...]] = ("text-classification", "text-generation")
    smaller: ClassVar[bool] = False

    exporter: Annotated[Exporter | None, EXPORTER] = None

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        exported = to_openvino(model, folder, "fp32", exporter=self.exporter)
        check_equal(model, exported)
        return exported


def to_openvino(
    model: TextModel,
    folder: Path,
    precision: str,
    quantized: Callable[[Any], Any] | None = None,
    exporter: Exporter | None = None,
    compress_to_fp16: bool = False,
) -> TextModel:
    """Trace `model` and write the graph into `folder`. `quantized` makes another graph of it first."""

    def write(net: Any, sample: dict[str, Any]) -> None:
        if chosen(exporter) == "optimum":
            graph = _through_onnx(net, model.task)
        else:
            own = exporters()
            graph = own.OpenVINOExporter().export(net, sample, own.OpenVINOConfig(dynamic=True)).program
        if quantized is not None:
            graph = quantized(graph)
        openvino.save_model(graph, str(folder / GRAPH), compress_to_fp16=compress_to_fp16)

    return export(model, folder, "openvino", precision, write)


def _through_onnx(net: Any, task: str) -> openvino.Model:
    if task == "text-generation":
        raise ModelError(
            "exporter=optimum gives no OpenVINO graph of a causal model; take export.onnx, or transformers 5.23"
        )
    with tempfile.TemporaryDirectory(prefix="llmops-onnx-") as folder:
        path = Path(folder) / "model.onnx"
        onnx_ir.save(graph_of(net, task), str(path))
        return openvino.convert_model(path)


def saved_weights(folder: Path) -> dict[str, np.ndarray]:
    """`weights_of` the graph in `folder`."""
    return weights_of(openvino.Core().read_model(str(folder / GRAPH)))


def weights_of(graph: Any) -> dict[str, np.ndarray]:
    """The constant that each node multiplies with, by the node's name."""
    found = {}
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "MatMul":
            weight = node.input(1).get_source_output().get_node()
            if weight.get_type_name() == "Constant":
                found[node.get_friendly_name()] = weight.get_data()
    return found
