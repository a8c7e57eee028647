"""Packed weights in an ONNX graph, through onnxruntime's own quantizers (MatMulNBits, GatherBlockQuantized)."""

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    HQQWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
    WeightOnlyQuantConfig,
)

from mlflow_llmops.engines import Arrays
from mlflow_llmops.engines.onnxruntime import GRAPH
from mlflow_llmops.methods.quantize._packed import Packing

GROUP_OF_8_BITS = 128
"""Small enough for precise scales, which take 32 bits each here, and large enough to keep the promised size."""
INT8_ARITHMETIC = 4
"""MatMulNBits' accuracy level whose kernels take a token's activations in 8 bits too, group by group: without it
weights of 8 bits are ten times slower than fp32 (benchmarks/README.md)."""


def compress(whole: Path, folder: Path, packing: Packing, batches: Sequence[Arrays], kept: Sequence[str] = ()) -> None:
    """Pack the weights of the graph in `whole` into `folder`, but for the nodes in `kept`.

    The output layer gets 8 bits, a table of embeddings 4 or none: there is no kernel that looks up 8.
    """
    model = onnx.load(str(whole / GRAPH))
    _untie(model)
    last = [node.name for node in model.graph.node if node.op_type == "MatMul"][-1:]
    size = packing.group_size if packing.bits == 4 else GROUP_OF_8_BITS
    plain = DefaultWeightOnlyQuantConfig(size, packing.symmetric, INT8_ARITHMETIC, bits=packing.bits)
    helped = HQQWeightOnlyQuantConfig(block_size=size, bits=packing.bits) if packing.algorithm == "hqq" else plain
    _quantize(model, helped, ("MatMul",), excluded=[*last, *kept])
    if packing.embeddings:
        outer = DefaultWeightOnlyQuantConfig(GROUP_OF_8_BITS, packing.symmetric, INT8_ARITHMETIC, bits=8)
        _quantize(model, outer, ("MatMul",), excluded=kept)
        if packing.bits == 4:
            _quantize(model, plain, ("Gather",))
    onnx.save(model, str(folder / GRAPH))


def _quantize(
    model: onnx.ModelProto, config: WeightOnlyQuantConfig, kinds: tuple[str, ...], excluded: Sequence[str] = ()
) -> None:
    """Operations of these kinds that have constant weights, in place."""
    config.op_types_to_quantize = kinds
    quantizer = MatMulNBitsQuantizer(model, nodes_to_exclude=list(excluded), algo_config=config)
    quantizer.process()


def _untie(model: onnx.ModelProto) -> None:
    """Give an output layer that shares the table of embeddings its own, transposed, as the quantizer wants it."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "Transpose" and node.input[0] in weights]:
        turned = numpy_helper.to_array(weights[node.input[0]]).T.copy()
        if turned.ndim == 2:
            model.graph.initializer.append(numpy_helper.from_array(turned, node.output[0]))
            model.graph.node.remove(node)
