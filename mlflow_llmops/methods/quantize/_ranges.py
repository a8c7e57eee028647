"""The ranges of activations that a static int8 graph was given: an artifact to look at."""

import json
from pathlib import Path

import numpy as np
import onnx
import openvino
from onnx import numpy_helper

from mlflow_llmops.engines.onnxruntime import GRAPH as ONNX_GRAPH
from mlflow_llmops.engines.openvino import GRAPH as OPENVINO_GRAPH

RANGES = "ranges.json"


def write_ranges(folder: Path, kind: str) -> None:
    """`ranges.json` beside the graph: the node whose output is quantized, the lowest and the highest value that it
    can say."""
    found = {"onnx": _of_onnx, "openvino": _of_openvino}[kind](folder)
    (folder / RANGES).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _of_openvino(folder: Path) -> dict[str, tuple[float, float]]:
    graph = openvino.Core().read_model(str(folder / OPENVINO_GRAPH))
    found = {}
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            source, low, high = (node.input(i).get_source_output().get_node() for i in range(3))
            if low.get_type_name() == high.get_type_name() == "Constant":
                found[source.get_friendly_name()] = (float(low.get_data().min()), float(high.get_data().max()))
    return found


def _of_onnx(folder: Path) -> dict[str, tuple[float, float]]:
    graph = onnx.load(str(folder / ONNX_GRAPH)).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    constants |= {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in graph.node if node.op_type == "Constant"
    }
    found = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants and node.input[1] in constants:
            scale, zero = (np.atleast_1d(constants[name]) for name in node.input[1:3])
            kind = np.iinfo(zero.dtype)
            lows = (kind.min - zero.astype(float)) * scale
            highs = (kind.max - zero.astype(float)) * scale
            found[node.input[0]] = (float(lows.min()), float(highs.max()))
    return found
