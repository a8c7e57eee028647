"""Several models measured in turn, all against the first: what a method's run and a comparison share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.flavors.by_kind import save_text_model
from mlflow_llmops.measure.measurement import Estimate, Measurements
from mlflow_llmops.measure.size import measure_size
from mlflow_llmops.measure.speed import Score, Times
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.steps._tasks import MEASURES
from mlflow_llmops.tracking.loaded import LoadedModel, asked


@dataclass(frozen=True)
class Contender:
    """A model in a comparison, with the version that it is, where it is one."""

    label: str
    loaded: LoadedModel
    version: str = ""


def side_by_side(
    contenders: Sequence[Contender],
    data: Splits,
    seconds: float,
    timed_only: Mapping[str, TextModel] | None = None,
    others: Mapping[str, Score] | None = None,
) -> tuple[dict[str, Measurements], dict[str, Times]]:
    """Quality on the test split of what was logged; speed, all in turn, on the same texts.

    The first contender is the baseline of every ratio. `timed_only` and `others`, which are no text models, are timed
    along and have no quality. Every contender was saved and asked before; TypeError otherwise.
    """
    loaded = {contender.label: contender.loaded for contender in contenders}
    first = contenders[0]
    task = MEASURES[first.loaded.model.task]
    models = {label: each.model for label, each in loaded.items()} | dict(timed_only or {})
    times, speeds = task.speed(models, data, seconds, others)
    good = task.quality(loaded, data)
    measured = {label: {**good[label], **speeds[label], **_counted(each)} for label, each in loaded.items()}
    for each in measured.values():
        each[names.SIZE_RATIO] = counted(each, names.DISK) / counted(measured[first.label], names.DISK)
    return measured | {label: speeds[label] for label in (*(timed_only or {}), *(others or {}))}, times


def log_pictures(contenders: Sequence[Contender], data: Splits) -> None:
    """What there is to see of the answers, into the active run."""
    first = contenders[0].loaded.model.task
    found = MEASURES[first].pictures({each.label: asked(each.loaded) for each in contenders}, data)
    for name, shown in found.items():
        if isinstance(shown, str):
            mlflow.log_text(shown, name)
        else:
            mlflow.log_figure(shown, name)


def with_answers(source: LoadedModel, data: Splits, folder: Path) -> LoadedModel:
    """Asked in a fresh process; what is no MLflow model yet is saved into `folder` first, which stays empty
    otherwise."""
    if source.answers is not None and source.folder is not None:
        return source
    artifact = source.folder
    if artifact is None:
        artifact = folder / "saved"
        save_text_model(source.model, artifact)
    return replace(source, folder=artifact, answers=MEASURES[source.model.task].ask(artifact, data))


def counted(measured: Measurements, name: str) -> float:
    """The value of a metric, without its interval."""
    value = measured[name]
    return value.value if isinstance(value, Estimate) else value


def _counted(loaded: LoadedModel) -> Measurements:
    answers = asked(loaded)
    if loaded.folder is None:
        raise TypeError(f"{loaded.reference} was not saved")
    return {
        names.PEAK_MEMORY: answers.peak_mib,
        names.COLD_START: answers.cold_start_s,
        **measure_size(loaded.model, loaded.folder),
    }
