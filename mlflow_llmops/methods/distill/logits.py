"""Distillation of the prediction layer: soft targets at a temperature, and the labels."""

from dataclasses import dataclass, replace
from pathlib import Path

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.methods._train import train
from mlflow_llmops.methods.distill._distillation import Distillation
from mlflow_llmops.models.text_model import TextModel


@dataclass(frozen=True)
class Logits(Distillation):
    """alpha * H(y, softmax(z_s)) + beta * tau^2 * H(softmax(z_t / tau), softmax(z_s / tau)), the two kept apart.

    Source: Hinton, Vinyals and Dean, arXiv:1503.02531. The teacher answers each text once, whatever the epochs.
    """

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        student = self.student_of(model, data, seed)
        rows, dev = self.lessons(model, student, data)
        train(student, rows, self.schedule(seed), self.answer_loss(model), dev)
        return replace(student, fresh=False)
