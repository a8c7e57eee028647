"""Several models measured in turn, all against the first: what a method's run and a comparison share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.measure import quality
from mlflow_llmops.measure.measurement import Estimate, Measurements
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.measure.size import measure_size
from mlflow_llmops.measure.speed import Times, measure_speed, speedup
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.tracking.references import LoadedModel


@dataclass(frozen=True)
class Contender:
    """A model in a comparison, with the version that it is, where it is one."""

    label: str
    loaded: LoadedModel
    version: str = ""


def side_by_side(
    contenders: Sequence[Contender], data: Splits, seconds: float, timed_only: Mapping[str, TextModel] | None = None
) -> tuple[dict[str, Measurements], dict[str, Times]]:
    """Quality on the test split of what each answered in a fresh process; speed, all in turn, on the same texts.

    The first contender is the baseline of every ratio. `timed_only` are timed along and have no quality. Every
    contender was saved and asked before; TypeError otherwise.
    """
    models = {contender.label: contender.loaded.model for contender in contenders} | dict(timed_only or {})
    scorers = {label: scorer_of(model) for label, model in models.items()}
    first = contenders[0]
    times = measure_speed(
        {label: scorer.logits for label, scorer in scorers.items()},
        data.test.texts,
        lambda texts: sum(map(len, scorers[first.label].encode(texts))),
        seconds,
    )
    measured = {contender.label: _measured(contender, first, data, times) for contender in contenders}
    for each in measured.values():
        each[names.SIZE_RATIO] = counted(each, names.DISK) / counted(measured[first.label], names.DISK)
    return measured, times


def counted(measured: Measurements, name: str) -> float:
    """The value of a metric, without its interval."""
    value = measured[name]
    return value.value if isinstance(value, Estimate) else value


def _measured(contender: Contender, first: Contender, data: Splits, times: Mapping[str, Times]) -> Measurements:
    answers, reference, folder = contender.loaded.answers, first.loaded.answers, contender.loaded.folder
    if answers is None or reference is None or folder is None:
        raise TypeError(f"{contender.label} was not saved and asked in a fresh process")
    truth = data.test.labels
    return {
        **quality.classification(truth, answers.labels),
        **quality.change(truth, reference.labels, answers.labels),
        **times[contender.label].measurements(),
        names.SPEEDUP: speedup(times[first.label], times[contender.label]),
        names.PEAK_MEMORY: answers.peak_mib,
        names.COLD_START: answers.cold_start_s,
        **measure_size(contender.loaded.model, folder),
    }
