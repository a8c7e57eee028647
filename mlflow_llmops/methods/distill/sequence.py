"""Sequence-level distillation: the teacher writes the completions, or names the labels, and the student learns them."""

import tempfile
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.endpoint.answers import Answer
from mlflow_llmops.endpoint.asking import Spending
from mlflow_llmops.endpoint.client import Endpoint, checked_url, checked_variable
from mlflow_llmops.endpoint.prompt import filled
from mlflow_llmops.errors import ConfigError, DataError
from mlflow_llmops.methods import _session
from mlflow_llmops.methods._ranks import from_main
from mlflow_llmops.methods._teacher import answers_key, teacher_answers
from mlflow_llmops.methods._train import train
from mlflow_llmops.methods.distill._asking import ask
from mlflow_llmops.methods.distill._completions import as_text, completions, prompts_of
from mlflow_llmops.methods.distill._lessons import (
    Lesson,
    label_lessons,
    prompt_texts,
    read_written,
    text_lessons,
    token_lessons,
    write_lessons,
)
from mlflow_llmops.methods.distill._match import label_difference, token_difference
from mlflow_llmops.methods.distill._student import build_student
from mlflow_llmops.methods.training import Training
from mlflow_llmops.models.text_model import TextModel

OPENAI = "openai:"
PROMPTS = {
    "text-classification": (
        "Which of the labels fits the text best?\n\nLabels:\n{labels}\n\nText:\n{text}\n\nAnswer with the label alone."
    ),
    "text-generation": "Continue the text. Answer with the continuation alone, do not repeat the text.\n\n{text}",
}

Lessons = dict[str, list[Lesson]]
"""Of each split that is asked about."""


@dataclass(frozen=True)
class Sequence(Training):
    """Cross entropy with what the teacher answers, instead of with the data's labels or texts.

    Source: Kim and Rush, arXiv:1606.07947. The teacher is the model itself, or any OpenAI-compatible endpoint, which
    answers each distinct prompt once: its answers stay on the disk for every later run. With `patience`, dev is asked
    about as well.
    """

    tasks: ClassVar[tuple[str, ...]] = ("text-classification", "text-generation")

    student: Annotated[str, "as of the other methods; its tokens may be others than the teacher's"] = "half"
    teacher: Annotated[str | None, "openai:MODEL of an OpenAI-compatible endpoint; auto: the model itself"] = None
    base_url: Annotated[str | None, "of the endpoint, as http://host:port/v1; auto: OPENAI_BASE_URL or OpenAI"] = None
    key_variable: Annotated[str, "name of the environment variable that holds the endpoint's key"] = "OPENAI_API_KEY"
    prompt: Annotated[str | None, "what the endpoint is asked, with {text} and {labels} in it; auto: by task"] = None
    prompt_tokens: Annotated[int, "tokens at the start of each text that the teacher completes", Ge(1)] = 16
    max_new_tokens: Annotated[int, "longest answer of the teacher", Ge(1)] = 64
    temperature: Annotated[
        float | None,
        "of the teacher; 0: its likeliest words; auto: the endpoint's own, 1 for the model itself",
        Ge(0),
    ] = None
    concurrency: Annotated[int, "requests on their way to the endpoint at once", Ge(1)] = 4
    timeout: Annotated[float, "seconds that the endpoint may take for an answer", Gt(0)] = 60.0
    max_retries: Annotated[int, "times a request is repeated after 429, 5xx, a timeout or a lost connection", Ge(0)] = 5
    max_requests: Annotated[int | None, "requests that this run may send, retries too; auto: no limit", Ge(1)] = None
    max_tokens: Annotated[int | None, "tokens that this run may spend, both ways; auto: no limit", Ge(1)] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher is not None and not self.teacher.removeprefix(OPENAI).strip():
            raise ConfigError(f"teacher={self.teacher!r}: name the endpoint's model, as openai:gpt-5-mini")
        if self.teacher is not None and not self.teacher.startswith(OPENAI):
            raise ConfigError(f"teacher={self.teacher!r}: write openai:MODEL, or auto for the model itself")
        if self.base_url is not None:
            checked_url(self.base_url)
        checked_variable(self.key_variable)
        if self.prompt is not None and "{text}" not in self.prompt:
            raise ConfigError(f"prompt={self.prompt!r}: it holds no {{text}}, so every text would be asked the same")

    def check(self, model: TextModel, data: Splits) -> None:
        super().check(model, data)
        if model.task == "text-generation" and self.prompt_tokens >= model.max_length:
            raise ConfigError(
                f"prompt_tokens={self.prompt_tokens}: the model takes {model.max_length} tokens, so nothing is left "
                "to complete; give less"
            )

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        student = build_student(model, self.student, seed)
        difference = label_difference(model, student)
        if difference:
            raise ConfigError(f"student={self.student!r}: {difference}; finetune it on the teacher's labels first")
        splits = {"train": data.train, "dev": data.dev} if self.patience else {"train": data.train}
        texts = [text for split in splits.values() for text in split.texts]
        if self.teacher is not None:
            key, flat = self._of_endpoint(model, student, texts)
        elif model.task == "text-generation":
            key, flat = self._of_writer(model, student, texts, seed)
        else:
            key, flat = _of_classifier(model, student, list(splits.values()))
        each = iter(flat)
        lessons = {name: [next(each) for _ in split.texts] for name, split in splits.items()}
        _keep(key, lessons)
        rows = {name: [lesson.row for lesson in some if lesson.row is not None] for name, some in lessons.items()}
        if not rows["train"]:
            self._refuse(lessons["train"])
        train(student, rows["train"], self.schedule(seed), dev=rows.get("dev", ()))
        return replace(student, fresh=False)

    def _of_writer(self, model: TextModel, student: TextModel, texts: list[str], seed: int) -> tuple[str, list[Lesson]]:
        """Lessons of a causal teacher, and a key over all that its answers depend on."""
        prompts = prompts_of(model, texts, self.prompt_tokens)
        # a student of the likeliest words alone was far worse than one of the texts: benchmarks/README.md
        temperature = 1.0 if self.temperature is None else self.temperature
        drawn = seed if temperature else "likeliest"
        how = f"{self.prompt_tokens} {self.max_new_tokens} {temperature} {drawn}"
        key = _key(answers_key(model, Texts(tuple(texts)), 0), how)

        def remembered() -> list[np.ndarray]:
            kept = _session.current().recall(key)
            if kept is not None:
                return read_written(kept)
            return completions(model, prompts, self.max_new_tokens, temperature, seed)

        written = from_main(remembered)
        if token_difference(model, student, texts) is None:
            lessons = token_lessons(student, texts, prompts, written)
        else:
            pairs = [as_text(model, prompt, new) for prompt, new in zip(prompts, written, strict=True)]
            before, answers = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            lessons = text_lessons(student, texts, before, answers, joint="")
        return key, [replace(lesson, written=tuple(new.tolist())) for lesson, new in zip(lessons, written, strict=True)]

    def _of_endpoint(self, model: TextModel, student: TextModel, texts: list[str]) -> tuple[str, list[Lesson]]:
        endpoint = Endpoint(
            model=(self.teacher or "").removeprefix(OPENAI).strip(),
            base_url=self.base_url,
            key_variable=self.key_variable,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            timeout=self.timeout,
            max_retries=self.max_retries,
            option=f"teacher={OPENAI}",
        )
        generates = model.task == "text-generation"
        shown = prompt_texts(model, texts, self.prompt_tokens) if generates else texts
        template, labels = self.prompt or PROMPTS[model.task], "\n".join(model.labels)
        prompts = [filled(template, {"text": text, "labels": labels}) for text in shown]
        spending = Spending(self.max_requests, self.max_tokens)
        answers = from_main(lambda: ask(endpoint, prompts, self.concurrency, spending))
        if generates:
            lessons = text_lessons(student, texts, shown, answers, joint=" ")
        else:
            lessons = label_lessons(student, texts, answers)
        errors = sum(lesson.row is None for lesson in lessons)
        _session.current().record({names.ANSWER_ERRORS: float(errors)}, spending.requests)
        return _key(*(answer.key for answer in answers)), lessons

    def _refuse(self, lessons: list[Lesson]) -> None:
        first = next(iter(lessons), Lesson("", "", None, "the train split is empty"))
        raise DataError(
            f"teacher={self.teacher or 'auto'}: none of {len(lessons)} answers can be learned from ({first.error}; the "
            f"first is {first.answer[:80]!r}); change prompt, max_new_tokens or teacher"
        )


def _of_classifier(model: TextModel, student: TextModel, splits: list[Texts]) -> tuple[str, list[Lesson]]:
    """Lessons of a classifier: its likeliest label for each text."""
    found = [logits for split in splits for logits in teacher_answers(model, split)["teacher"]]
    answers = [Answer("", model.labels[int(np.argmax(logits))]) for logits in found]
    texts = tuple(text for split in splits for text in split.texts)
    return _key(answers_key(model, Texts(texts), 0)), label_lessons(student, texts, answers)


def _key(*parts: str) -> str:
    return "sequence-" + sha256(" ".join(parts).encode()).hexdigest()[:16]


def _keep(key: str, lessons: Lessons) -> None:
    """As an artifact of the run, so that anybody can look what the student was taught."""
    with tempfile.TemporaryDirectory(prefix="llmops-lessons-") as folder:
        write_lessons(lessons, Path(folder))
        _session.current().keep(key, Path(folder))
