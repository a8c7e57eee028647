"""What factorizing methods share: a network that no stock class holds is trained a little and leaves as a graph."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Lt

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import DataError
from mlflow_llmops.methods._exported import check_equal
from mlflow_llmops.methods.prune._recovery import recover
from mlflow_llmops.methods.training import Training
from mlflow_llmops.models.tasks import task_named
from mlflow_llmops.models.text_model import TextModel

RECOVERY = (
    "training of the factors before the export: distill, from the labels and the model as it was; full, on the labels; "
    "none"
)


@dataclass(frozen=True)
class Factorization(Training):
    """A method that writes matrices as products of narrower ones."""

    engine: Annotated[Literal["openvino", "onnx"], "the runtime that the artifact is for"] = "openvino"
    recovery: Annotated[Literal["distill", "full", "none"], RECOVERY] = "distill"
    epochs: Annotated[float, "passes over the train split while recovering", Ge(0)] = 1.0
    token_dropout: Annotated[float, "share of tokens hidden while recovering", Ge(0), Lt(1)] = 0.1

    artifact_precision: ClassVar[str] = "fp32, factorized"

    @property
    def gives(self) -> str:  # type: ignore[override]
        return self.engine

    def factorized(self, model: TextModel, data: Splits, seed: int) -> TextModel:
        """A copy in torch with its matrices as products, not trained yet."""
        raise NotImplementedError

    def check(self, model: TextModel, data: Splits) -> None:
        super().check(model, data)
        if self.recovery == "none":
            return
        wants = "texts" if not len(data.train) else "labels" if self._unlabelled(model, data) else ""
        if wants:
            raise DataError(
                f"recovery={self.recovery} needs {wants} in the train split; give data with some, or recovery=none"
            )

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        made = self.factorized(model, data, seed)
        if self.recovery != "none":
            recover(made, model, data, self.recovery, self.schedule(seed), 0, names.RECOVER)
        exported = self.export()(made, folder, self.artifact_precision)
        check_equal(made, exported)
        return exported

    def export(self) -> Callable[[TextModel, Path, str], TextModel]:
        """How a torch network becomes a graph for the engine."""
        from mlflow_llmops.methods.export.onnx import to_onnx
        from mlflow_llmops.methods.export.openvino import to_openvino

        return to_openvino if self.engine == "openvino" else to_onnx

    @staticmethod
    def _unlabelled(model: TextModel, data: Splits) -> bool:
        return task_named(model.task).labelled and not data.train.labels
