"""Several models measured in turn, all against the first: what a method's run and a comparison share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.measure.measurement import Estimate, Measurements
from mlflow_llmops.measure.size import measure_size
from mlflow_llmops.measure.speed import Times
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.steps._tasks import MEASURES
from mlflow_llmops.tracking.references import LoadedModel, asked


@dataclass(frozen=True)
class Contender:
    """A model in a comparison, with the version that it is, where it is one."""

    label: str
    loaded: LoadedModel
    version: str = ""


def side_by_side(
    contenders: Sequence[Contender], data: Splits, seconds: float, timed_only: Mapping[str, TextModel] | None = None
) -> tuple[dict[str, Measurements], dict[str, Times]]:
    """Quality on the test split of what was logged; speed, all in turn, on the same texts.

    The first contender is the baseline of every ratio. `timed_only` are timed along and have no quality. Every
    contender was saved and asked before; TypeError otherwise.
    """
    loaded = {contender.label: contender.loaded for contender in contenders}
    first = contenders[0]
    task = MEASURES[first.loaded.model.task]
    models = {label: each.model for label, each in loaded.items()} | dict(timed_only or {})
    times, speeds = task.speed(models, data, seconds)
    good = task.quality(loaded, data)
    measured = {label: {**good[label], **speeds[label], **_counted(each)} for label, each in loaded.items()}
    for each in measured.values():
        each[names.SIZE_RATIO] = counted(each, names.DISK) / counted(measured[first.label], names.DISK)
    return measured | {label: speeds[label] for label in timed_only or {}}, times


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
