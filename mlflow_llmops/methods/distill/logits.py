"""Distillation of the prediction layer: soft targets at a temperature, and the labels."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from torch.nn.functional import cross_entropy, softmax
from tqdm.auto import tqdm

from mlflow_llmops.batching.plan import TOKEN_BUDGET
from mlflow_llmops.batching.scorer import TextScorer
from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.methods._train import Loss, Schedule, train
from mlflow_llmops.methods.distill._student import build_student
from mlflow_llmops.methods.method import Method
from mlflow_llmops.models.text_model import TextModel


@dataclass(frozen=True)
class Logits(Method):
    """alpha * H(y, softmax(z_s)) + beta * tau^2 * H(softmax(z_t / tau), softmax(z_s / tau)).

    Source: Hinton, Vinyals and Dean, arXiv:1503.02531. The factor tau^2 keeps the two gradients' sizes alike.
    """

    tasks: ClassVar[tuple[str, ...]] = ("text-classification",)

    student: Annotated[str, "half or layers:N of the teacher's, or shape:layers=2,width=128,heads=4 (fresh)"] = "half"
    alpha: Annotated[float, "weight of the loss against the labels", Ge(0)] = 0.3
    beta: Annotated[float, "weight of the loss against the teacher", Ge(0)] = 0.7
    tau: Annotated[float, "temperature of the teacher's and student's soft answers", Gt(0)] = 2.0
    epochs: Annotated[float, "passes over the train split", Ge(0)] = 3.0
    learning_rate: Annotated[float | None, "peak learning rate; auto: by the network's width", Gt(0)] = None
    batch_size: Annotated[int, "texts in a training step", Ge(1)] = 32
    token_dropout: Annotated[float, "share of the student's tokens hidden while training", Ge(0), Lt(1)] = 0.1

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        student = build_student(model, self.student, seed)
        schedule = Schedule(self.epochs, self.learning_rate, self.batch_size, self.token_dropout, seed)
        answers = teacher_logits(model, data.train)
        train(
            student,
            data.train,
            schedule,
            soft_target_loss(self.alpha, self.beta, self.tau),
            {"teacher": answers},
        )
        return replace(student, fresh=False)


def soft_target_loss(alpha: float, beta: float, tau: float) -> Loss:
    """The loss in the class's docstring, from the student's logits and a batch with `labels` and `teacher` logits."""

    def loss(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        soft = cross_entropy(logits / tau, softmax(batch["teacher"] / tau, dim=-1))
        return alpha * cross_entropy(logits, batch["labels"]) + beta * tau**2 * soft

    return loss


def teacher_logits(teacher: TextModel, texts: Texts) -> np.ndarray:
    """The teacher's logits for every text, (texts, labels): each text is answered once, whatever the epochs."""
    bar = tqdm(total=len(texts), desc="teacher's answers")

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        bar.update(len(inputs["input_ids"]))
        answered: np.ndarray = teacher.run(inputs)
        return answered

    scorer = TextScorer(teacher.encoder, run, teacher.max_length, teacher.pad_id, TOKEN_BUDGET[teacher.kind])
    with bar:
        return scorer.logits_of_ids(scorer.encode(texts.texts))
