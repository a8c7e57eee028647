"""Does the champion still hold on tonight's texts? Exit code 5 where it does not, and a new one was promoted."""

from typing import Annotated, Any

import mlflow
import pandas as pd
from annotated_types import Ge, Gt
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from rich.text import Text

from mlflow_llmops import names
from mlflow_llmops.data.load import load_data
from mlflow_llmops.errors import DataError, LLMOpsError
from mlflow_llmops.measure.intervals import independent_change
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.script import (
    MaxQualityDrop,
    MeasureSeconds,
    MinSpeedup,
    Model,
    Outcome,
    RegisteredModel,
    Seed,
    script,
)
from mlflow_llmops.steps.compare import compare
from mlflow_llmops.steps.compress import compress
from mlflow_llmops.steps.promote import promote
from mlflow_llmops.tracking.run import log_measurements, start_run

NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow says where there is no model, or no champion of it: the first night. Anything else is a failure."""


class Drifted(LLMOpsError):
    """The champion was worse tonight than it may be; another one has its place now."""

    exit_code = 5
    shown: tuple[object, ...] = ()


def nightly(
    name: RegisteredModel = "tickets",
    data: Annotated[str, "tonight's labelled texts, as the data of the verbs"] = "build/tonight.csv",
    model: Model = "builtin:encoder",
    method: Annotated[str, "of quantize, for what is trained anew"] = "int8_static",
    epochs: Annotated[float, "passes over the texts, where a model is trained", Gt(0)] = 3.0,
    tolerance: Annotated[float, "accuracy that may be lost before it is called a drift", Ge(0)] = 0.02,
    max_quality_drop: MaxQualityDrop = 0.02,
    min_speedup: MinSpeedup = 0.5,
    measure_seconds: MeasureSeconds = 10.0,
    seed: Seed = 0,
) -> Outcome:
    """Measure the champion on new texts; where it drifted, retrain and promote through the gate, and alarm."""
    limits: dict[str, Any] = {"max_quality_drop": max_quality_drop, "min_speedup": min_speedup}
    limits |= {"data": data, "measure_seconds": measure_seconds}
    with start_run("nightly_regression", {}, {"nightly.name": name, "nightly.data": data}) as run:
        champion = _champion(name)
        if champion is None:
            baseline, version = _trained(name, model, method, epochs, data, measure_seconds, seed)
            compare(name, f"{baseline},{version}", data, measure_seconds=measure_seconds)
            promoted = promote(name, version, names.PRODUCTION, **limits)
            return Outcome(run.info.run_id, (Text("first night: there was no champion"), *promoted.shown))
        was, now = _then(champion), _tonight(champion, data)
        change = independent_change(was, now)
        log_measurements({names.ACCURACY: now, names.QUALITY_CHANGE: change})
        said = f"version {champion.version} of {name}: accuracy {was} when it was made, {now} tonight, change {change}"
        if change.high >= -tolerance:
            sure = "it holds" if change.low >= -tolerance else "a drift is not proven; more texts would tell"
            mlflow.set_tag(names.VERDICT, sure)
            return Outcome(run.info.run_id, (Text(f"{said}: {sure}"),))
        mlflow.set_tag(names.VERDICT, "drifted")
        _, version = _trained(name, model, method, epochs, data, measure_seconds, seed)
        promoted = promote(name, version, names.PRODUCTION, **limits)
        alarm = Drifted(f"{said}: it drifted, and version {version}, trained on tonight's texts, has its place")
        alarm.shown = promoted.shown
        raise alarm


def _champion(name: str) -> ModelVersion | None:
    try:
        return MlflowClient().get_model_version_by_alias(name, names.CHAMPION)
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
        return None


def _then(champion: ModelVersion) -> Estimate:
    """The accuracy that the run which made it has, with the interval. Raises DataError where it has none."""
    metrics = mlflow.get_run(champion.run_id).data.metrics
    if names.ACCURACY not in metrics:
        raise DataError(f"the run of version {champion.version} has no {names.ACCURACY}; was it made by a verb?")
    return _estimate(metrics)


def _tonight(champion: ModelVersion, data: str) -> Estimate:
    """On all of tonight's texts, which it never saw, in a nested run."""
    splits = load_data(data)
    parts = [
        pd.DataFrame({"text": part.texts, "label": part.labels}) for part in (splits.train, splits.dev, splits.test)
    ]
    reference = f"models:/{champion.name}/{champion.version}"
    with mlflow.start_run(run_name="evaluate the champion", nested=True):
        given: dict[str, Any] = {"targets": "label", "model_type": "classifier", "evaluators": "llmops"}
        metrics = mlflow.models.evaluate(reference, pd.concat(parts, ignore_index=True), **given).metrics
    return _estimate(metrics)


def _estimate(metrics: dict[str, float]) -> Estimate:
    return Estimate(*(metrics[names.ACCURACY + end] for end in ("", names.LOW, names.HIGH)))


def _trained(
    name: str, model: str, method: str, epochs: float, data: str, seconds: float, seed: int
) -> tuple[str, str]:
    """The versions of a model trained on these texts and of what is small of it."""
    common: dict[str, Any] = {"data": data, "measure_seconds": seconds, "seed": seed, "register_as": name}
    common["speed_grid"] = False
    whole = dict(compress("finetune", "full", model, options={"epochs": str(epochs)}, **common).values or {})[
        "link"
    ].version
    small = dict(compress("quantize", method, f"models:/{name}/{whole}", **common).values or {})["link"].version
    return whole, small


if __name__ == "__main__":
    script(nightly)()
