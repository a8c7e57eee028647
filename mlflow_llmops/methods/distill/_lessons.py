"""From a teacher's answers to the rows that a student learns; an answer that it cannot learn is kept too."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlflow_llmops.endpoint.answers import Answer
from mlflow_llmops.methods._rows import IGNORED, Row, encode
from mlflow_llmops.models.text_model import TextModel

FILE = "answers.jsonl"
AROUND = " \t\r\n\"'`.*“”„‘’«»"
"""What models like to write around a label."""


@dataclass(frozen=True)
class Lesson:
    """What the teacher said to one text: the row to learn, or None and the error that speaks against it."""

    text: str
    answer: str
    row: Row | None
    error: str = ""
    written: tuple[int, ...] | None = None
    """The answer as the teacher's token ids, where it came as such."""


def label_lessons(student: TextModel, texts: Sequence[str], answers: Sequence[Answer]) -> list[Lesson]:
    """The label that each answer names, whatever its case and the quotes or full stop around it."""
    exact = {label: number for number, label in enumerate(student.labels)}
    plain = [_plain(label) for label in student.labels]
    loose = {name: number for number, name in enumerate(plain) if name and plain.count(name) == 1}
    lessons = []
    for text, ids, answer in zip(texts, encode(student, texts), answers, strict=True):
        said = answer.answer or ""
        number = exact.get(said.strip(), loose.get(_plain(said)))
        if answer.answer is None:
            lessons.append(Lesson(text, "", None, answer.error))
        elif number is None:
            lessons.append(Lesson(text, said, None, "the answer is none of the labels"))
        else:
            lessons.append(Lesson(text, said, Row(ids, number)))
    return lessons


def token_lessons(
    student: TextModel, texts: Sequence[str], prompts: Sequence[np.ndarray], written: Sequence[np.ndarray]
) -> list[Lesson]:
    """Prompt and completion as the token ids that student and teacher share."""
    lessons = []
    for text, prompt, new in zip(texts, prompts, written, strict=True):
        row = _row(np.concatenate([prompt, new])[: student.max_length], len(prompt))
        answer = str(student.tokenizer.decode(new.tolist(), skip_special_tokens=True))
        lessons.append(Lesson(text, answer, row, "" if row else "the text leaves nothing to complete"))
    return lessons


def text_lessons(
    student: TextModel, texts: Sequence[str], prompts: Sequence[str], answers: Sequence[Answer], joint: str
) -> list[Lesson]:
    """Prompt and completion as texts, `joint` between them where no space is, with an end token where the teacher came
    to an end."""
    encoder = student.encoder
    encoder.no_padding()
    encoder.enable_truncation(student.max_length)
    end = student.tokenizer.eos_token_id
    lessons = []
    for text, prompt, answer in zip(texts, prompts, answers, strict=True):
        said = answer.answer or ""
        if not said.strip():
            lessons.append(Lesson(text, said, None, answer.error or "the answer is empty"))
            continue
        between = "" if said[0].isspace() or prompt[-1:].isspace() else joint
        encoded = encoder.encode(prompt + between + said)
        ids = list(encoded.ids)
        known = next((i for i, (start, _) in enumerate(encoded.offsets) if start >= len(prompt)), len(ids))
        if end is not None and ids[-1:] == [end]:  # the tokenizer's, whether the teacher came to an end or not
            ids = ids[:-1]
        if end is not None and answer.finish_reason == "stop" and known < len(ids) < student.max_length:
            ids.append(end)
        row = _row(np.array(ids, dtype=np.int64), known)
        lessons.append(Lesson(text, said, row, "" if row else "the prompt leaves no room for the answer"))
    return lessons


def prompt_texts(model: TextModel, texts: Sequence[str], tokens: int) -> list[str]:
    """The part of each text that its first `tokens` tokens cover."""
    encoder = model.encoder
    encoder.no_padding()
    encoder.enable_truncation(model.max_length)
    encoded = encoder.encode_batch(list(texts))
    ends = [max((end for _, end in item.offsets[:tokens]), default=0) for item in encoded]
    return [text[:end] for text, end in zip(texts, ends, strict=True)]


def write_lessons(lessons: Mapping[str, Sequence[Lesson]], folder: Path) -> None:
    """One JSON object a line: the split, the text, the raw answer, whether it is learned from, and why not."""
    with (folder / FILE).open("w", encoding="utf-8") as file:
        for split, each in lessons.items():
            for lesson in each:
                line: dict[str, object] = {"split": split, "text": lesson.text, "answer": lesson.answer}
                line |= {"kept": lesson.row is not None, "error": lesson.error}
                if lesson.written is not None:
                    line["written"] = lesson.written
                file.write(json.dumps(line) + "\n")


def read_written(folder: Path) -> list[np.ndarray]:
    """The teacher's token ids of each line, (tokens,)."""
    with (folder / FILE).open(encoding="utf-8") as file:
        return [np.array(json.loads(line)["written"], dtype=np.int64) for line in file]


def _row(ids: np.ndarray, prompt_tokens: int) -> Row | None:
    """A row whose prompt no loss counts; None where nothing comes after it."""
    labels = ids.copy()
    labels[:prompt_tokens] = IGNORED
    return Row(ids, labels) if len(ids) > prompt_tokens else None


def _plain(said: str) -> str:
    return said.strip(AROUND).casefold()
