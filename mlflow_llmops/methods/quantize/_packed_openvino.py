"""Packed weights in an OpenVINO graph, through NNCF."""

import logging
from collections.abc import Sequence
from pathlib import Path

import nncf
import numpy as np
import openvino

from mlflow_llmops.engines import Arrays, positions
from mlflow_llmops.engines.openvino import GRAPH
from mlflow_llmops.engines.openvino_decoder import ROWS
from mlflow_llmops.methods.quantize._packed import Packing

MODES = {
    (4, True): nncf.CompressWeightsMode.INT4_SYM,
    (4, False): nncf.CompressWeightsMode.INT4_ASYM,
    (8, True): nncf.CompressWeightsMode.INT8_SYM,
    (8, False): nncf.CompressWeightsMode.INT8_ASYM,
}
OPTIONS = {"awq": {"awq": True}, "scale": {"scale_estimation": True}, "gptq": {"gptq": True}, "rtn": {}}


def compress(whole: Path, folder: Path, packing: Packing, batches: Sequence[Arrays], kept: Sequence[str] = ()) -> None:
    """Pack the weights of the graph in `whole` into `folder`, but for the nodes in `kept`; `batches` are token ids and
    masks of texts to calibrate on."""
    nncf.set_log_level(logging.ERROR)
    graph = openvino.Core().read_model(str(whole / GRAPH))
    options: dict[str, object] = {**OPTIONS[packing.algorithm]}
    if packing.bits == 4:
        options["group_size"] = packing.group_size
    if batches:
        names = [port.get_any_name() for port in graph.inputs]
        options["dataset"] = nncf.Dataset([_fed(names, batch) for batch in batches])
        options["subset_size"] = len(batches)
    left = [*kept, *_sharing(graph, kept)]
    if not packing.embeddings:
        if packing.bits == 4:
            options["backup_mode"] = nncf.BackupMode.NONE
        else:
            left += _outer_layers(graph)
    if left:
        options["ignored_scope"] = nncf.IgnoredScope(names=sorted(set(left)))
    packed = nncf.compress_weights(graph, mode=MODES[packing.bits, packing.symmetric], **options)
    openvino.save_model(packed, str(folder / GRAPH), compress_to_fp16=False)


def _fed(names: Sequence[str], batch: Arrays) -> Arrays:
    """All that the graph takes; a decoder starts from no past."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    given = {**batch, "position_ids": positions(mask, ids.shape[1]), ROWS: np.arange(len(ids), dtype=np.int32)}
    return {name: given[name] for name in names}


def _sharing(graph: openvino.Model, kept: Sequence[str]) -> list[str]:
    """The look-ups of embeddings whose table is the weight of a kept layer too: it is packed once or not at all."""
    operations = {op.get_friendly_name(): op for op in graph.get_ordered_ops()}
    tables = {operations[name].input_value(1).get_node().get_friendly_name() for name in kept}
    return [
        name
        for name, op in operations.items()
        if op.get_type_name() == "Gather" and op.input_value(0).get_node().get_friendly_name() in tables
    ]


def _outer_layers(graph: openvino.Model) -> list[str]:
    """The look-ups of embeddings, and the layer that gives the logits."""
    operations = graph.get_ordered_ops()
    found = [
        op.get_friendly_name()
        for op in operations
        if op.get_type_name() == "Gather" and _is_weight(op.input_value(0).get_node())
    ]
    last = [op.get_friendly_name() for op in operations if op.get_type_name() == "MatMul"]
    return [*found, *last[-1:]]


def _is_weight(node: openvino.Node) -> bool:
    return node.get_type_name() == "Constant" and len(node.get_output_shape(0)) == 2
