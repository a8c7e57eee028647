"""The options that every method which trains has, said once."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from mlflow_llmops.methods._train import Schedule
from mlflow_llmops.methods.method import Method


@dataclass(frozen=True)
class Training(Method):
    """A method with a training loop: AdamW, a tenth of the steps to warm up, then linearly down to nothing."""

    epochs: Annotated[float, "passes over the train split", Ge(0)] = 3.0
    learning_rate: Annotated[float | None, "peak learning rate; auto: by the network's width", Gt(0)] = None
    batch_size: Annotated[int, "texts in a training step", Ge(1), Le(65536)] = 32
    accumulation: Annotated[int, "batches whose gradients make up one step of the optimizer", Ge(1)] = 1
    token_dropout: Annotated[float, "share of tokens hidden while training", Ge(0), Lt(1)] = 0.0
    patience: Annotated[
        int | None, "epochs without a lower loss on dev before training stops, keeping the best; auto: none", Ge(1)
    ] = None
    freeze_embeddings: Annotated[bool, "leave the embeddings as they are: cheaper steps, some quality"] = False
    precision: Annotated[Literal["auto", "fp32", "bf16"], "of training; auto: bf16 where the hardware has it"] = "auto"

    def schedule(self, seed: int) -> Schedule:
        """How the training loop is to run."""
        return Schedule(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            token_dropout=self.token_dropout,
            seed=seed,
            accumulation=self.accumulation,
            patience=self.patience,
            freeze_embeddings=self.freeze_embeddings,
            precision=self.precision,
        )
