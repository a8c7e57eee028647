"""What measuring and proving a model means, by its task: a new task is one more file and one more line here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from matplotlib.figure import Figure

from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.measure.measurement import Measurements
from mlflow_llmops.measure.speed import Score, Times
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.steps import _classification, _generation
from mlflow_llmops.tracking.loaded import LoadedModel
from mlflow_llmops.tracking.reload import Answers


class TaskMeasures(Protocol):
    """A module with these functions. Of several models the first is the baseline, and all have been asked."""

    def ask(self, artifact: Path, data: Splits) -> Answers:
        """What the saved artifact answers in a fresh process."""

    def prove(self, made: TextModel, answers: Answers, data: Splits) -> None:
        """Raises ArtifactMismatch where the fresh process does not answer as the model in memory."""

    def prove_loaded(self, made: TextModel, loaded: TextModel, data: Splits) -> None:
        """The same of what the fresh process cannot be asked for, with the logged model loaded here."""

    def quality(self, models: Mapping[str, LoadedModel], data: Splits) -> dict[str, Measurements]:
        """On the test split: of each model, and against the baseline."""

    HELD: str
    """What `held` measures, in words."""

    def quality_here(self, models: Mapping[str, TextModel], data: Splits) -> dict[str, Measurements]:
        """`quality` of models as they are in memory."""

    def held(self, model: TextModel, texts: Texts) -> float:
        """The quality on one split that a bound on its loss is about: more is better, and a loss is a difference."""

    def speed(
        self, models: Mapping[str, TextModel], data: Splits, seconds: float, others: Mapping[str, Score] | None = None
    ) -> tuple[dict[str, Times], dict[str, Measurements]]:
        """Times of scoring, and all that follows from times, for each model; `others` are timed in turn with them."""

    def gains(self, was: Times, now: Times) -> Measurements:
        """How many times as fast `now` is, under the names of ratios."""

    def pictures(self, answers: Mapping[str, Answers], data: Splits) -> dict[str, str | Figure]:
        """What else there is to see of the answers: Markdown and pictures by the names of their files."""

    def beside(self, label: str, first: LoadedModel, data: Splits, measured: Measurements) -> list[str]:
        """What else the baseline is held against, in words; its numbers go into `measured`."""


MEASURES: dict[str, TaskMeasures] = {"text-classification": _classification, "text-generation": _generation}
