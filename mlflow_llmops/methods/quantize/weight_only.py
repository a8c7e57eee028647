"""Weights in 4 or 8 bits, arithmetic in floating point: for generation, whose every token reads all weights once."""

import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Le, MultipleOf
from torch import nn
from transformers.pytorch_utils import Conv1D

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.engines import Arrays
from mlflow_llmops.errors import ConfigError, DataError, ModelError
from mlflow_llmops.methods._calibration import batches_of_one, calibration_texts
from mlflow_llmops.methods._exported import check_equal
from mlflow_llmops.methods._fake_quantize import Rounding
from mlflow_llmops.methods._layers import flattened, nodes_of
from mlflow_llmops.methods.export import onnx, openvino
from mlflow_llmops.methods.quantize._packed import Packing
from mlflow_llmops.methods.quantize._quantization import Quantization
from mlflow_llmops.models.text_model import TextModel

Compress = Callable[[Path, Path, Packing, list[Arrays], list[str]], None]
CALIBRATED = ("awq", "scale", "gptq")
"""Algorithms that look at texts."""
DEFAULTS = {("openvino", 4): "gptq", ("openvino", 8): "rtn", ("onnx", 4): "rtn", ("onnx", 8): "rtn"}
ALGORITHMS = {
    ("openvino", 4): ("rtn", *CALIBRATED),
    ("openvino", 8): ("rtn",),
    ("onnx", 4): ("rtn", "hqq"),
    ("onnx", 8): ("rtn",),
}


@dataclass(frozen=True)
class WeightOnly(Quantization):
    """Groups of a layer's inputs share a scale. 4 bits lose quality unless rounding is helped: `awq` scales the inputs
    that matter (Lin et al., arXiv:2306.00978), `scale` fits scales to real activations, `gptq` lets later weights mend
    what earlier ones lost (Frantar et al., arXiv:2210.17323), `hqq` fits zero points without any text, for which
    onnxruntime has no fast kernel; `rtn` rounds."""

    tasks: ClassVar[tuple[str, ...]] = ("text-classification", "text-generation")

    bits: Annotated[int, "bits of a weight, 4 or 8", Ge(4), Le(8), MultipleOf(4)] = 4
    group_size: Annotated[int, "inputs of a layer that share a scale at 4 bits; at 8 a row has one", Ge(32)] = 64
    engine: Annotated[Literal["openvino", "onnx"], "the runtime that the artifact is for"] = "openvino"
    algorithm: Annotated[
        Literal["rtn", "awq", "scale", "gptq", "hqq"] | None,
        "how weights are rounded; auto: gptq for openvino at 4 bits, else rtn",
    ] = None
    symmetric: Annotated[bool, "weights without a zero point"] = False
    embeddings: Annotated[bool, "embeddings and the output layer too, in 8 bits"] = True
    calibration_texts: Annotated[int, "texts of the train split that awq, scale and gptq look at", Ge(1)] = 128

    @property
    def gives(self) -> str:  # type: ignore[override]
        return self.engine

    @property
    def rounding(self) -> Rounding:
        return Rounding(self.bits, inputs=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ALGORITHMS[self.engine, self.bits]
        if self.algorithm is not None and self.algorithm not in known:
            raise ConfigError(
                f"algorithm={self.algorithm!r}: engine={self.engine} has {', '.join(known)} at {self.bits} bits"
            )
        if self.engine == "onnx" and self.bits == 4 and self.group_size & (self.group_size - 1):
            raise ConfigError(f"group_size={self.group_size!r}: engine=onnx takes powers of 2; take 32, 64 or 128")

    def check(self, model: TextModel, data: Splits) -> None:
        super().check(model, data)
        if self.bits == 4:
            _check_groups(model, self.group_size, self.kept(model.network))
        if self._chosen in CALIBRATED and not len(data.train):
            raise DataError(f"data={data.source}: {self._chosen} needs texts and the train split is empty; take rtn")

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        to, compress, weights = _engine(self.engine)
        packing = Packing(self.bits, self.group_size, self._chosen, self.symmetric, self.embeddings)
        batches: list[Arrays] = []
        if self._chosen in CALIBRATED:
            batches = batches_of_one(model, calibration_texts(data, self.calibration_texts, seed).texts)
        with tempfile.TemporaryDirectory(prefix="llmops-fp32-") as whole:
            exported = to(model, Path(whole), "fp32")
            check_equal(model, exported)
            kept = flattened(nodes_of(model.network, self.kept(model.network), weights(Path(whole))))
            compress(Path(whole), folder, packing, batches, kept)
            artifact = exported.artifact
        model.save_encoder(folder)
        replace(artifact, precision=f"int{self.bits} weights, {self._chosen}").write(folder)
        return replace(exported, folder=folder)

    @property
    def _chosen(self) -> str:
        return self.algorithm or DEFAULTS[self.engine, self.bits]


def _engine(name: str) -> tuple[Callable[..., TextModel], Compress, Callable[[Path], dict[str, np.ndarray]]]:
    """How to export, how to pack what was exported, and how to read its weights."""
    if name == "onnx":
        from mlflow_llmops.methods.quantize._packed_onnx import compress as compress_onnx

        return onnx.to_onnx, compress_onnx, onnx.saved_weights
    from mlflow_llmops.methods.quantize._packed_openvino import compress as compress_openvino

    return openvino.to_openvino, compress_openvino, openvino.saved_weights


def _check_groups(model: TextModel, group_size: int, kept: Collection[str]) -> None:
    base = set(model.network.base_model.modules())
    for name, layer in model.network.named_modules():
        if layer not in base or name in kept:
            continue
        inputs = layer.weight.shape[0] if isinstance(layer, Conv1D) else getattr(layer, "in_features", 0)
        if isinstance(layer, nn.Linear | Conv1D) and inputs % group_size:
            fitting = [size for size in (128, 64, 32) if inputs % size == 0]
            hint = f"take {fitting[0]}" if fitting else "take bits=8, or keep the layer"
            raise ModelError(f"group_size={group_size} does not divide the {inputs} inputs of {name}; {hint}")
