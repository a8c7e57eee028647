"""Post-training quantization of weights to int8, activations at run time; ONNX through onnxruntime."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.hardware import INT8
from mlflow_llmops.methods._exported import exporters
from mlflow_llmops.methods._layers import flattened, nodes_of
from mlflow_llmops.methods.export.onnx import to_onnx, weights_of
from mlflow_llmops.methods.quantize._quantization import Quantization
from mlflow_llmops.models.text_model import TextModel


@dataclass(frozen=True)
class Int8Dynamic(Quantization):
    """Needs no data. The range of an activation is that of its whole batch, so a text's score depends on its
    batch-mates: by 1e-3 of a probability in many networks, by 0.2 in one that was seen. `quality/batch_drift` says."""

    gives: ClassVar[str] = "onnx"
    wants: ClassVar[tuple[str, ...]] = INT8

    per_channel: Annotated[bool, "one scale for each output channel of a weight, not one for all"] = True

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        own = exporters()

        def quantized(graph: Any) -> Any:
            kept = flattened(nodes_of(model.network, self.kept(model.network), weights_of(graph)))
            kept += [f"{node}_MatMul" for node in kept]  # how onnxruntime calls a Gemm once it has split it
            config = own.OnnxRuntimeDynamicConfig(per_channel=self.per_channel, nodes_to_exclude=kept or None)
            return own.OnnxRuntimeQuantizer(config).quantize(graph, {}, own.ExportFormat.ONNX)

        return to_onnx(model, folder, "int8 dynamic", quantized)
