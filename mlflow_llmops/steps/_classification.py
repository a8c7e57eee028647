"""How classifiers are measured and proven: by the labels that a fresh process gives the test split."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from mlflow_llmops import names
from mlflow_llmops.batching.scorer import softmax
from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.errors import DataError
from mlflow_llmops.measure import quality as labels_quality
from mlflow_llmops.measure.batch_drift import batch_drift
from mlflow_llmops.measure.classes import by_class
from mlflow_llmops.measure.device import measure_device
from mlflow_llmops.measure.measurement import Estimate, Measurements
from mlflow_llmops.measure.rival import tfidf_answers
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.measure.speed import Score, Times, latency_speedup, measure_speed, speedup
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.tracking.classes import classes_markdown, confusion_png
from mlflow_llmops.tracking.loaded import LoadedModel, asked
from mlflow_llmops.tracking.reload import Answers, answers_of_fresh_process, check_asked, check_same

HELD = "accuracy"


def ask(artifact: Path, data: Splits) -> Answers:
    """The labels of the test split."""
    return answers_of_fresh_process(artifact, data.test.texts)


def prove(made: TextModel, answers: Answers, data: Splits) -> None:
    """Labels and scores of the test split."""
    check_same(made.labels, softmax(scorer_of(made).logits(data.test.texts)), answers)


def prove_loaded(made: TextModel, loaded: TextModel, data: Splits) -> None:
    """Nothing: the fresh process was asked for all that is measured."""


def quality(models: Mapping[str, LoadedModel], data: Splits) -> dict[str, Measurements]:
    """Accuracy, macro-F1 and calibration, the change in accuracy, and how far a score moves with its batch-mates.

    Raises DataError where a model answered other texts than the test split's.
    """
    said = {label: asked(model) for label, model in models.items()}
    check_asked(said, data.test.texts)
    truth, first = data.test.labels, next(iter(said.values())).labels
    answers = {label: each.labels for label, each in said.items()}
    return {
        label: {
            **labels_quality.classification(truth, now),
            **labels_quality.change(truth, first, now),
            names.CALIBRATION_ERROR: labels_quality.calibration_error(truth, now, said[label].scores),
            **batch_drift(models[label].model, data.test.texts),
        }
        for label, now in answers.items()
    }


def quality_here(models: Mapping[str, TextModel], data: Splits) -> dict[str, Measurements]:
    """The same of models in memory, without their batch-mates."""
    truth = data.test.labels
    answers = {
        label: [model.labels[i] for i in scorer_of(model).logits(data.test.texts).argmax(axis=1)]
        for label, model in models.items()
    }
    first = next(iter(answers.values()))
    return {
        label: {**labels_quality.classification(truth, now), **labels_quality.change(truth, first, now)}
        for label, now in answers.items()
    }


def held(model: TextModel, texts: Texts) -> float:
    """Accuracy."""
    if not len(texts):
        raise DataError("there are no texts in the split that quality is held on")
    answers = scorer_of(model).logits(texts.texts).argmax(axis=1)
    return sum(model.labels[i] == label for i, label in zip(answers, texts.labels, strict=True)) / len(texts)


def speed(
    models: Mapping[str, TextModel], data: Splits, seconds: float, others: Mapping[str, Score] | None = None
) -> tuple[dict[str, Times], dict[str, Measurements]]:
    """From texts to labels."""
    scorers = {label: scorer_of(model) for label, model in models.items()}
    first = next(iter(models))
    times = measure_speed(
        {**{label: scorer.logits for label, scorer in scorers.items()}, **(others or {})},
        data.test.texts,
        lambda texts: sum(map(len, scorers[first].encode(texts))),
        seconds,
    )
    device = measure_device(models, data.test.texts, {label: scorer.logits for label, scorer in scorers.items()})
    return times, {
        label: {**each.measurements(), **gains(times[first], each), **device.get(label, {})}
        for label, each in times.items()
    }


def gains(was: Times, now: Times) -> Measurements:
    """Of all texts together, and of one alone."""
    return {names.SPEEDUP: speedup(was, now), names.LATENCY_SPEEDUP: latency_speedup(was, now)}


def pictures(answers: Mapping[str, Answers], data: Splits) -> dict[str, str | Figure]:
    """Quality label by label as a table, and which label is taken for which."""
    found = by_class(data.test.labels, {label: each.labels for label, each in answers.items()})
    return {names.CLASSES_TABLE: classes_markdown(found), names.CONFUSION_PNG: confusion_png(found)}


def beside(label: str, first: LoadedModel, data: Splits, measured: Measurements) -> list[str]:
    """TF-IDF with logistic regression, trained on the same split."""
    rival = tfidf_answers(data)
    scored = labels_quality.classification(data.test.labels, rival)
    against = labels_quality.change(data.test.labels, rival, asked(first).labels)[names.QUALITY_CHANGE]
    measured[names.TFIDF_ACCURACY] = scored[names.ACCURACY]
    measured[names.CHANGE_TO_TFIDF] = against
    if not isinstance(against, Estimate):
        raise TypeError("a change in quality is an estimate")
    place = "ahead of" if against.low > 0 else "behind" if against.high < 0 else "not told apart from"
    return [
        f"{label} is {place} TF-IDF with logistic regression ({scored[names.ACCURACY]}) on the same split: "
        f"{against.value:+.4f} [{against.low:+.4f}, {against.high:+.4f}]"
    ]
