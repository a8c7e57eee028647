"""Export to OpenVINO IR in fp32."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import openvino
from transformers.exporters import ExportFormat, OpenVINOConfig, OpenVINOExporter

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.engines.openvino import GRAPH
from mlflow_llmops.methods._exported import check_equal, export
from mlflow_llmops.methods.method import Method
from mlflow_llmops.models.text_model import TextModel


@dataclass(frozen=True)
class OpenVino(Method):
    """The same network as an OpenVINO graph: another runtime, no compression."""

    gives: ClassVar[str] = "openvino"
    tasks: ClassVar[tuple[str, ...]] = ("text-classification", "text-generation")
    smaller: ClassVar[bool] = False

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        exported = to_openvino(model, folder, "fp32")
        check_equal(model, exported)
        return exported


def to_openvino(
    model: TextModel, folder: Path, precision: str, quantizer: Callable[[Any], Any] | None = None, **options: Any
) -> TextModel:
    """Trace `model` and write the graph into `folder`. `quantizer` gets it first and answers with the quantizer (of
    `transformers.exporters`) that changes it; `options` are `OpenVINOConfig`'s."""

    def write(net: Any, sample: dict[str, Any]) -> None:
        exporter = OpenVINOExporter()
        graph = exporter.export(net, sample, OpenVINOConfig(dynamic=True, **options)).program
        if quantizer is not None:
            graph = quantizer(graph).quantize(graph, sample, ExportFormat.OPENVINO)
        exporter.save_program(graph, folder / GRAPH)

    return export(model, folder, "openvino", precision, write)


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
