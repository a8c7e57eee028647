"""What every method of distillation has: a student, its teacher's answers, and the loss of the prediction layer."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Lt

from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods._losses import Loss, soft_target_loss
from mlflow_llmops.methods._rows import Row, rows_of
from mlflow_llmops.methods._teacher import TOP_K, teacher_answers
from mlflow_llmops.methods.distill._match import label_difference, token_difference
from mlflow_llmops.methods.distill._student import build_student
from mlflow_llmops.methods.training import Training
from mlflow_llmops.models.text_model import TextModel


@dataclass(frozen=True)
class WithStudent(Training):
    """The option that describes the student, who is checked against the teacher before any training."""

    tasks: ClassVar[tuple[str, ...]] = ("text-classification", "text-generation")
    by_token: ClassVar[bool] = False
    """Teacher and student are compared at every token, so both must cut a text into the same ones."""

    student: Annotated[
        str,
        "half or layers:N of the teacher's; fresh: shape:layers=2,width=128,heads=4, or distilbert, tinybert-4, "
        "tinybert-6, albert, mobilebert, with sizes of yours as in albert:width=128,layers=2; or a folder or hub id",
    ] = "half"

    def student_of(self, teacher: TextModel, data: Splits, seed: int) -> TextModel:
        """Build the student.

        Raises ConfigError where its labels, or its tokens where they matter, are not the teacher's.
        """
        student = build_student(teacher, self.student, seed)
        difference = label_difference(teacher, student)
        if difference:
            raise ConfigError(f"student={self.student!r}: {difference}; finetune it on the teacher's labels first")
        difference = token_difference(*self._cut_alike(teacher, student), data.train.texts)
        if difference and self._by_token(teacher):
            other = (
                "distill.sequence, which learns from"
                if teacher.task == "text-generation"
                else "distill.logits, which compares the answers to"
            )
            raise ConfigError(
                f"student={self.student!r}: {difference}, so tokens cannot be compared; use {other} whole texts"
            )
        return student

    def _by_token(self, teacher: TextModel) -> bool:
        return self.by_token or teacher.task == "text-generation"

    @staticmethod
    def _cut_alike(teacher: TextModel, student: TextModel) -> tuple[TextModel, TextModel]:
        length = min(teacher.max_length, student.max_length)
        return replace(teacher, max_length=length), replace(student, max_length=length)


@dataclass(frozen=True)
class Distillation(WithStudent):
    """The options of alpha * H(y, softmax(z_s)) + beta * tau^2 * H(softmax(z_t/tau), softmax(z_s/tau)).

    Source: Hinton, Vinyals and Dean, arXiv:1503.02531. The teacher answers each text once, whatever the epochs.
    """

    alpha: Annotated[float, "weight of the loss against the labels", Ge(0)] = 0.3
    beta: Annotated[float, "weight of the loss against the teacher", Ge(0)] = 0.7
    tau: Annotated[
        float | None,
        "temperature of the teacher's and student's soft answers; auto: 2, or 1 for text-generation, where top_k words "
        "hold less of a softened answer",
        Gt(0),
    ] = None
    top_k: Annotated[
        int, "words of a causal teacher's answer to each token that are kept; the rest is one mass", Ge(1)
    ] = TOP_K
    token_dropout: Annotated[float, "share of the student's tokens hidden while training", Ge(0), Lt(1)] = 0.1

    def lessons(self, teacher: TextModel, student: TextModel, data: Splits) -> tuple[list[Row], list[Row]]:
        """The student's tokens and the teacher's answers: rows of the train split, and of dev where `patience`
        watches it."""
        dev = self._rows(teacher, student, data.dev) if self.patience else []
        return self._rows(teacher, student, data.train), dev

    def answer_loss(self, teacher: TextModel) -> Loss:
        """The loss of the prediction layer."""
        tau = self.tau or (1.0 if teacher.task == "text-generation" else 2.0)
        return soft_target_loss(self.alpha, self.beta, tau)

    def _rows(self, teacher: TextModel, student: TextModel, texts: Texts) -> list[Row]:
        if self._by_token(teacher):
            teacher, student = self._cut_alike(teacher, student)
        answers = teacher_answers(teacher, texts, self.top_k)
        if teacher.labels != student.labels:
            order = [teacher.labels.index(label) for label in student.labels]
            answers = {name: [logits[order] for logits in rows] for name, rows in answers.items()}
        return rows_of(student, texts, answers)
