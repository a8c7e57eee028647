"""Export to OpenVINO IR in fp32."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from transformers.exporters import OpenVINOConfig, OpenVINOExporter

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


def to_openvino(model: TextModel, folder: Path, precision: str, quantizer: Any = None) -> TextModel:
    """Trace `model`, let `quantizer` (of `transformers.exporters`) change the graph, and write it into `folder`."""

    def write(net: Any, sample: dict[str, Any]) -> None:
        exporter = OpenVINOExporter()
        exported = exporter.export(net, sample, OpenVINOConfig(dynamic=True, quantizer=quantizer))
        exporter.save_program(exported.program, folder / GRAPH)

    return export(model, folder, "openvino", precision, write)
