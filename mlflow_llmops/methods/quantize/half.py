"""Weights in 16 bits."""

import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import openvino
import torch
from openvino import opset13

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.engines.openvino import GRAPH
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods._fake_quantize import FP16, Rounding
from mlflow_llmops.methods._layers import flattened, nodes_of
from mlflow_llmops.methods.export.openvino import to_openvino, weights_of
from mlflow_llmops.methods.quantize._quantization import Quantization
from mlflow_llmops.models.text_model import TextModel

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SIZE = 384
"""Rows and columns of the matrices that are multiplied to find out whether this machine computes in a type."""
ROUNDS = 9


@dataclass(frozen=True)
class Half(Quantization):
    """Half of the size. An OpenVINO graph stores fp16 and computes in fp32, as fast and nearly as exact as before; a
    torch network computes in its type, which is fast only where the hardware does too (AMX, GPUs)."""

    tasks: ClassVar[tuple[str, ...]] = ("text-classification", "text-generation")

    engine: Annotated[Literal["openvino", "torch"], "runtime of the result"] = "openvino"
    dtype: Annotated[Literal["fp16", "bf16"], "type of the weights; openvino has fp16, torch on a CPU wants bf16"] = (
        "fp16"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.engine, self.dtype) == ("openvino", "bf16"):
            raise ConfigError("dtype='bf16': an OpenVINO graph keeps its weights in fp16; give that, or engine=torch")
        if self.engine == "torch" and (self.keep is not None or self.max_quality_drop is not None):
            raise ConfigError(
                "engine='torch': a torch network computes in one type, so no layer can stay; keep and max_quality_drop "
                "are for engine=openvino"
            )

    @property
    def rounding(self) -> Rounding:
        return FP16

    @property
    def gives(self) -> str:  # type: ignore[override]
        return self.engine

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        if self.engine == "openvino":
            layers = self.kept(model.network)
            whole: dict[str, np.ndarray] = {}

            def look(graph: Any) -> Any:
                weights = weights_of(graph)
                nodes = flattened(nodes_of(model.network, layers, weights))
                whole.update({node: weights[node].copy() for node in nodes})
                return graph

            made = to_openvino(model, folder, "fp16", look, compress_to_fp16=True)
            if whole:
                _put_back(folder, whole)
            return made
        slower = times_as_slow(DTYPES[self.dtype], model.network.device)
        if self.dtype == "fp16" and slower > 1:
            raise ConfigError(
                f"dtype='fp16': this machine emulates it, a matrix product took {slower:.1f} times as long as in fp32 "
                "just now; use dtype=bf16, or engine=openvino, which stores fp16 and computes in fp32"
            )
        net: Any = deepcopy(model.network)
        return model.with_net(net.to(DTYPES[self.dtype]))


def _put_back(folder: Path, weights: dict[str, np.ndarray]) -> None:
    """Give the nodes of the saved graph their fp32 weights again: OpenVINO halves all constants or none."""
    graph = openvino.Core().read_model(str(folder / GRAPH))
    for node in graph.get_ordered_ops():
        if node.get_friendly_name() in weights:
            constant = opset13.constant(weights[node.get_friendly_name()])
            node.input(1).replace_source_output(constant.output(0))
    mended = folder / f"whole-{GRAPH}"  # not in place: the weights of the other are read from its file
    openvino.save_model(graph, str(mended), compress_to_fp16=False)
    del graph
    for suffix in (".xml", ".bin"):
        mended.with_suffix(suffix).replace((folder / GRAPH).with_suffix(suffix))


def times_as_slow(dtype: torch.dtype, device: torch.device) -> float:
    """How many times as long a product of matrices takes as in fp32, here and now: the median of paired rounds."""
    generator = torch.Generator().manual_seed(0)
    full = torch.randn(SIZE, SIZE, generator=generator).to(device)
    ratios = sorted(_seconds(full.to(dtype)) / _seconds(full) for _ in range(ROUNDS))
    return ratios[ROUNDS // 2]


def _seconds(matrix: torch.Tensor) -> float:
    matrix @ matrix  # warm
    start = time.perf_counter()
    product = matrix @ matrix
    product.sum().item()  # waits for a GPU too
    return time.perf_counter() - start
