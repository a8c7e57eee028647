"""Post-training quantization of weights and activations to int8, with a calibration step."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import nncf
from annotated_types import Ge, Le
from onnxruntime.quantization import CalibrationMethod, QuantType

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.engines import Arrays
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.hardware import INT8
from mlflow_llmops.methods._calibration import as_tensors, batches_of_one, calibration_texts
from mlflow_llmops.methods._exported import exporters
from mlflow_llmops.methods._fastest import TEXTS, fastest
from mlflow_llmops.methods._layers import flattened, nodes_of
from mlflow_llmops.methods.export import onnx, openvino
from mlflow_llmops.methods.quantize._quantization import Quantization
from mlflow_llmops.methods.quantize._ranges import write_ranges
from mlflow_llmops.models.text_model import TextModel

Engine = Literal["openvino", "onnx", "fastest"]
TRANSFORMER = nncf.ModelType.TRANSFORMER
RANGES = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
"""onnxruntime's own ways to set ranges."""


@dataclass(frozen=True)
class Int8Static(Quantization):
    """Ranges of activations are fixed by running texts of the train split; a text's score stands for itself alone.

    NNCF's model type `transformer` adds SmoothQuant (Xiao et al., arXiv:2211.10438) and bias correction. onnxruntime's
    own quantizer has neither; it quantizes what has a constant weight, since more than that made it slower than fp32.
    """

    wants: ClassVar[tuple[str, ...]] = INT8

    engine: Annotated[Engine, "runtime of the result; fastest: both are made and timed here"] = "openvino"
    calibration_texts: Annotated[int, "texts of the train split that set the ranges of activations", Ge(1)] = 128
    ranges: Annotated[
        Literal["nncf", "minmax", "entropy", "percentile"],
        "who sets them: nncf, or with engine=onnx onnxruntime's minmax, entropy or percentile",
    ] = "nncf"
    smooth_quant: Annotated[
        float | None, "share of the range that SmoothQuant moves from activations to weights; auto: 0.95", Ge(0), Le(1)
    ] = None
    bias_correction: Annotated[Literal["fast", "accurate", "none"], "how the biases make up for rounding"] = "fast"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ranges != "nncf" and self.engine != "onnx":
            raise ConfigError(
                f"ranges={self.ranges!r}: that is onnxruntime's; give engine=onnx with it, or ranges=nncf"
            )

    @property
    def gives(self) -> str:  # type: ignore[override]
        return "onnx or openvino" if self.engine == "fastest" else self.engine

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        if self.engine == "fastest":
            engines: tuple[Engine, ...] = ("openvino", "onnx")
            makers: dict[str, Any] = {
                each: partial(replace(self, engine=each).apply, model, data, seed=seed) for each in engines
            }
            return fastest(makers, data.train.texts[:TEXTS], folder)
        samples = batches_of_one(model, calibration_texts(data, self.calibration_texts, seed).texts)
        quantized = {"onnx": self._onnx, "openvino": self._openvino}[self.engine]
        export: Any = {"onnx": onnx.to_onnx, "openvino": openvino.to_openvino}[self.engine]
        made = export(model, folder, "int8 static", partial(quantized, model, samples))
        write_ranges(folder, self.engine)
        return made

    def _openvino(self, model: TextModel, samples: list[Arrays], graph: Any) -> Any:
        kept = flattened(nodes_of(model.network, self.kept(model.network), openvino.weights_of(graph)))
        return nncf.quantize(graph, nncf.Dataset(samples), model_type=TRANSFORMER, **self._nncf(kept, len(samples)))

    def _onnx(self, model: TextModel, samples: list[Arrays], graph: Any) -> Any:
        kept = flattened(nodes_of(model.network, self.kept(model.network), onnx.weights_of(graph)))
        own = exporters()
        if self.ranges == "nncf":
            given = self._nncf(kept, len(samples))
            quantizer = own.NNCFOnnxQuantizer(own.NNCFQuantizationConfig(**given), as_tensors(samples))
        else:
            quantizer = own.OnnxRuntimeQuantizer(self._onnxruntime(kept), as_tensors(equally_long(samples)))
        return quantizer.quantize(graph, {}, own.ExportFormat.ONNX)

    def _nncf(self, kept: list[str], count: int) -> dict[str, Any]:
        advanced = nncf.AdvancedQuantizationParameters(disable_bias_correction=self.bias_correction == "none")
        if self.smooth_quant is not None:
            advanced.smooth_quant_alphas = nncf.AdvancedSmoothQuantParameters(matmul=self.smooth_quant or -1)
        return {
            "subset_size": count,
            "fast_bias_correction": self.bias_correction != "accurate",
            "ignored_scope": nncf.IgnoredScope(names=kept) if kept else None,
            "advanced_parameters": advanced,
        }

    def _onnxruntime(self, kept: list[str]) -> Any:
        return exporters().OnnxRuntimeStaticConfig(
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            calibrate_method=RANGES[self.ranges],
            nodes_to_exclude=kept or None,
            extra_options={"MatMulConstBOnly": True},
        )


def equally_long(samples: list[Arrays]) -> list[Arrays]:
    """Cut to the length of the shorter quarter, without those that are shorter still: onnxruntime's histograms take
    texts of one length only, and padding would count as text."""
    lengths = sorted(sample["input_ids"].shape[1] for sample in samples)
    length = lengths[len(lengths) // 4]
    return [
        {name: array[:, :length] for name, array in sample.items()}
        for sample in samples
        if sample["input_ids"].shape[1] >= length
    ]
