"""Whether a teacher and its student speak of the same labels and the same tokens."""

from collections.abc import Sequence

from mlflow_llmops.methods._rows import encode
from mlflow_llmops.models.text_model import TextModel

PROBES = (
    "It's 3.5 % of the naïve Ünïcode: 東京, Ελλάδα & 😀!",
    " two  spaces\tand\nlines ",
    "f(x_1)=a-b/c.d",
    "",
)
PROBED = 200
"""Texts of the train split that are compared besides."""


def label_difference(teacher: TextModel, student: TextModel) -> str | None:
    """What is different between their labels, whatever their order; None for nothing."""
    missing, extra = set(teacher.labels) - set(student.labels), set(student.labels) - set(teacher.labels)
    if missing:
        return f"it does not know the teacher's label {min(missing)!r}"
    if extra:
        return f"the teacher does not know its label {min(extra)!r}"
    return None


def token_difference(teacher: TextModel, student: TextModel, texts: Sequence[str]) -> str | None:
    """What is different between their tokens, with texts cut at the same length; None for nothing."""
    if teacher.task == "text-generation":
        theirs, ours = teacher.network.config.vocab_size, student.network.config.vocab_size
        if theirs != ours:
            return f"its answers have {ours} words and the teacher's {theirs}"
    if student.tokenizer is teacher.tokenizer:
        return None
    if student.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
        return f"its vocabulary ({len(student.tokenizer)} tokens) is not the teacher's ({len(teacher.tokenizer)})"
    probes = [*PROBES, *texts[:PROBED]]
    for text, ours, theirs in zip(probes, encode(student, probes), encode(teacher, probes), strict=True):
        if ours.tolist() != theirs.tolist():
            return f"it cuts {text[:30]!r} into other tokens than the teacher"
    return None
