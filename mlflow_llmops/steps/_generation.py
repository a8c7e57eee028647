"""How causal models are measured and proven: by how likely they hold the test split, and by what they write."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.measure.completions import against_texts, alike, continuations
from mlflow_llmops.measure.device import measure_device
from mlflow_llmops.measure.generation import Written, complete, measure_generation, prompts_of, writing_gains
from mlflow_llmops.measure.language import language, language_change
from mlflow_llmops.measure.likelihood import likelihoods, score
from mlflow_llmops.measure.measurement import Measurements
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.measure.speed import Score, Times, measure_speed, speedup
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.tracking.completions import check_completions, check_likelihoods
from mlflow_llmops.tracking.loaded import LoadedModel, asked
from mlflow_llmops.tracking.reload import Answers, answers_of_fresh_process, check_asked

HELD = "log-likelihood of a token, nats"


def ask(artifact: Path, data: Splits) -> Answers:
    """Greedy completions of the test split's first words."""
    return answers_of_fresh_process(artifact, prompts_of(data.test.texts))


def prove(made: TextModel, answers: Answers, data: Splits) -> None:
    """Completions."""
    check_completions(made, complete(made, prompts_of(data.test.texts)), answers)


def prove_loaded(made: TextModel, loaded: TextModel, data: Splits) -> None:
    """The likelihood of every token of the test split, which is what quality is measured by."""
    check_likelihoods(likelihoods(made, data.test.texts), likelihoods(loaded, data.test.texts))


def quality(models: Mapping[str, LoadedModel], data: Splits) -> dict[str, Measurements]:
    """Perplexity, token accuracy and the change in log-likelihood; completions against the texts and the baseline's.

    Raises DataError where a model completed other prompts than the test split's.
    """
    said = {label: asked(loaded) for label, loaded in models.items()}
    prompts = prompts_of(data.test.texts)
    check_asked(said, prompts)
    real, first = continuations(data.test.texts, prompts), next(iter(said.values())).completions
    found = quality_here({label: loaded.model for label, loaded in models.items()}, data)
    if prompts:
        for label, each in said.items():
            found[label] |= against_texts(each.completions, real) | alike(first, each.completions)
    return found


def quality_here(models: Mapping[str, TextModel], data: Splits) -> dict[str, Measurements]:
    """The same of models in memory."""
    found = {label: likelihoods(model, data.test.texts) for label, model in models.items()}
    first = next(iter(found.values()))
    return {label: {**language(each), **language_change(first, each, data.test.texts)} for label, each in found.items()}


def held(model: TextModel, texts: Texts) -> float:
    """The mean log-likelihood of a token, in nats."""
    found = likelihoods(model, texts.texts)
    return float(sum(each.sum() for each in found.log) / max(1, found.counts.sum()))


@dataclass(frozen=True)
class LanguageTimes(Times):
    """Times of scoring, and those of writing."""

    written: Written = field(kw_only=True)


def speed(
    models: Mapping[str, TextModel], data: Splits, seconds: float, others: Mapping[str, Score] | None = None
) -> tuple[dict[str, Times], dict[str, Measurements]]:
    """Scoring and generation, half of the time each. Raises ConfigError for `others`, which say no likelihoods."""
    if others:
        raise ConfigError(f"models={', '.join(others)}: only models of ours are compared for text-generation")
    first, texts = next(iter(models)), data.test.texts
    scored = measure_speed(
        {label: partial(score, model) for label, model in models.items()},
        texts,
        lambda texts: sum(map(len, scorer_of(models[first]).encode(texts))),
        seconds / 2,
    )
    written = measure_generation(models, prompts_of(texts), seconds / 2, texts=texts)
    times: dict[str, Times] = {
        label: LanguageTimes(**vars(each), written=written[label]) for label, each in scored.items()
    }
    device = measure_device(models, texts, {label: partial(score, model) for label, model in models.items()})
    return times, {
        label: {**each.measurements(), **written[label].measurements(), **gains(times[first], each), **device[label]}
        for label, each in times.items()
    }


def gains(was: Times, now: Times) -> Measurements:
    """At scoring, and at reading and writing."""
    if not isinstance(was, LanguageTimes) or not isinstance(now, LanguageTimes):
        raise TypeError("times of causal models hold those of writing too")
    return {names.SPEEDUP: speedup(was, now), **writing_gains(was.written, now.written)}


def pictures(answers: Mapping[str, Answers], data: Splits) -> dict[str, str | Figure]:
    """None so far."""
    return {}


def beside(label: str, first: LoadedModel, data: Splits, measured: Measurements) -> list[str]:
    """Nothing so far."""
    return []
