"""The exporter of optimum-onnx: for those who must stay on transformers 4.57, which has none of its own."""

import logging
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx_ir

from mlflow_llmops.engines.onnxruntime import GRAPH
from mlflow_llmops.engines.onnxruntime_decoder import PAST, PRESENT
from mlflow_llmops.errors import MissingExtra

TASKS = {"text-classification": "text-classification", "text-generation": "text-generation-with-past"}


def graph_of(net: Any, task: str) -> onnx_ir.Model:
    """The network as an ONNX graph with the inputs and outputs that our engines know.

    Raises MissingExtra where optimum-onnx is not installed.
    """
    if find_spec("optimum") is None or find_spec("optimum.exporters.onnx") is None:
        raise MissingExtra(
            "exporter=optimum needs optimum-onnx, which wants transformers 4.57: in an environment of its own, "
            "pip install 'mlflow-llmops[optimum-onnx]'; transformers 5.23 and newer have an exporter themselves"
        )
    from optimum.exporters.onnx import onnx_export_from_model

    logging.getLogger("optimum").setLevel(logging.ERROR)  # it tells each of its steps
    with tempfile.TemporaryDirectory(prefix="llmops-optimum-") as folder:
        # check_equal looks at the result, at more lengths than optimum's own validation
        onnx_export_from_model(net, output=Path(folder), task=TASKS[task], do_validation=False)
        graph = onnx_ir.load(str(Path(folder) / GRAPH))
        onnx_ir.external_data.load_to_model(graph)
    _without_token_types(graph.graph)
    for value in (*graph.graph.inputs, *graph.graph.outputs):
        value.name = _named_as_ours(value.name or "")
    return graph


def _named_as_ours(name: str) -> str:
    if name.startswith("past_key_values."):
        return PAST + name.removeprefix("past_key_values.")
    return PRESENT + name.removeprefix("present.") if name.startswith("present.") else name


def _without_token_types(graph: onnx_ir.Graph) -> None:
    """A single text has but one type of tokens: zeros in the graph, and no input."""
    for types in [value for value in graph.inputs if value.name == "token_type_ids"]:
        ids = next(value for value in graph.inputs if value.name == "input_ids")
        shape = onnx_ir.node("Shape", [ids])
        zero = onnx_ir.tensor([0], dtype=onnx_ir.DataType.INT64)
        zeros = onnx_ir.node("ConstantOfShape", shape.outputs, {"value": zero})
        graph.insert_before(graph[0], [shape, zeros])
        onnx_ir.convenience.replace_all_uses_with(types, zeros.outputs[0])
        graph.inputs.remove(types)
