"""Fine-tuning of every weight."""

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge, Lt

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.methods._rows import rows_of
from mlflow_llmops.methods._train import train
from mlflow_llmops.methods.training import Training
from mlflow_llmops.models.text_model import TextModel

EPOCHS = "passes over the train split; auto: 3, or 6 from random weights"
DROPOUT = "share of tokens hidden while training; auto: 0, or 0.3 from random weights"


@dataclass(frozen=True)
class Full(Training):
    """Train all weights with AdamW and a linear schedule; random weights are trained longer by default."""

    compresses: ClassVar[bool] = False
    new_head: ClassVar[bool] = True
    smaller: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = ("text-classification", "text-generation")

    epochs: Annotated[float | None, EPOCHS, Ge(0)] = None  # type: ignore[assignment]
    token_dropout: Annotated[float | None, DROPOUT, Ge(0), Lt(1)] = None  # type: ignore[assignment]

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        trained = model.with_net(deepcopy(model.network))
        schedule = replace(
            self.schedule(seed),
            epochs=(6 if model.fresh else 3) if self.epochs is None else self.epochs,
            token_dropout=(0.3 if _hides_tokens(model) else 0.0) if self.token_dropout is None else self.token_dropout,
        )
        train(trained, rows_of(trained, data.train), schedule, dev=rows_of(trained, data.dev))
        return replace(trained, fresh=False)


def _hides_tokens(model: TextModel) -> bool:
    return model.fresh and model.task == "text-classification"
