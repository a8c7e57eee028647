"""One method applied, measured against its baseline, and proven by reloading: the core of every verb."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import torch

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.flavors.by_kind import log_text_model, save_text_model
from mlflow_llmops.measure.measurement import Measurements, flat
from mlflow_llmops.measure.verdict import verdict
from mlflow_llmops.methods import table
from mlflow_llmops.methods.method import Method
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.registry.versions import register
from mlflow_llmops.steps._side_by_side import Contender, side_by_side
from mlflow_llmops.steps._tasks import MEASURES
from mlflow_llmops.tracking.lineage import log_data
from mlflow_llmops.tracking.references import LoadedModel, download, load_model
from mlflow_llmops.tracking.report import Row, markdown
from mlflow_llmops.tracking.run import log_measurements, log_params
from mlflow_llmops.tracking.session import run_session


@dataclass(frozen=True)
class Link:
    """A finished method: its run, the logged model as it was loaded again, and what was measured."""

    name: str
    run_id: str
    result: LoadedModel
    measured: Measurements
    verdict: str
    rows: tuple[Row, ...]
    tags: Mapping[str, str]
    """What a version of it says about itself."""
    version: str | None = None


def apply_method(
    name: str,
    options: Mapping[str, Any],
    source: LoadedModel,
    data: Splits,
    run_id: str,
    chain: str = "",
    seed: int = 0,
    measure_seconds: float = 10.0,
) -> Link:
    """Apply the method `name` to `source` inside the active run, and log, measure and prove the result.

    Raises ArtifactMismatch where the logged model does not answer as the one in memory.
    """
    method = table.build(name, options)
    chosen = {f"{name}.{option.name}": getattr(method, option.name) for option in method.options()}
    log_params({**chosen, f"{name}.seed": seed})
    log_data(data)
    method.check(source.model, data)
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory(prefix="llmops-") as folder:
        with run_session(run_id):
            made = method.apply(source.model, data, _empty(folder, "candidate"), seed)
        info = log_text_model(made)
        logged = _proven(made, info.model_uri, data)
        baseline = _with_answers(source, data, _empty(folder, "baseline"))
        with _control(method, source.model, data, _empty(folder, "control"), seed) as control:
            measured, baseline_measured, rows = _measure(name, baseline, logged, control, data, measure_seconds)
    log_measurements(baseline_measured, names.BASELINE_PREFIX)
    log_measurements(measured, model_id=info.model_id)
    said = verdict(measured, method.compresses)
    mlflow.set_tags(
        {
            names.VERDICT: said,
            names.KIND: made.kind,
            names.RELOADED: "same outputs",
            **_lineage(source),
        }
    )
    mlflow.log_text(markdown(rows, f"{name}: {said}"), names.REPORT)
    mlflow.log_dict({row.label: flat(row.measured) for row in rows}, names.MEASUREMENTS)
    tags = {
        names.METHOD: name,
        names.TASK: made.task,
        names.CHAIN: chain or name,
        names.VERDICT: said,
        names.DATA_FINGERPRINT: data.fingerprint,
        **_lineage(source),
    }
    return Link(name, run_id, logged, measured, said, rows, tags)


def registered(link: Link, name: str) -> Link:
    """Its model as a new version of `name`."""
    return replace(link, version=register(link.result.reference, name, link.tags))


def _lineage(source: LoadedModel) -> dict[str, str]:
    """An alias moves, so the logged model behind it is kept too."""
    known = {names.SOURCE_MODEL_ID: source.model_id} if source.model_id else {}
    return {names.SOURCE_MODEL: source.reference, **known}


def _proven(made: TextModel, reference: str, data: Splits) -> LoadedModel:
    """The logged model with what it answers in a fresh process, which must be what the one in memory does."""
    task = MEASURES[made.task]
    answers = task.ask(download(reference), data)
    task.prove(made, answers, data)
    logged = load_model(reference, made.task)
    task.prove_loaded(made, logged.model, data)
    return replace(logged, answers=answers)


def _with_answers(source: LoadedModel, data: Splits, folder: Path) -> LoadedModel:
    """The baseline, asked in a fresh process like the candidate."""
    if source.answers is not None and source.folder is not None:
        return source
    artifact = source.folder
    if artifact is None:
        artifact = folder / "saved"
        save_text_model(source.model, artifact)
    return replace(source, folder=artifact, answers=MEASURES[source.model.task].ask(artifact, data))


@contextmanager
def _control(method: Method, source: TextModel, data: Splits, folder: Path, seed: int) -> Iterator[TextModel | None]:
    """The baseline at full precision in the candidate's runtime: what a change of runtime gives without compression."""
    if method.gives == source.kind or type(method) is table.method_class(f"export.{method.gives}"):
        yield None
    else:
        yield table.build(f"export.{method.gives}", {}).apply(source, data, folder, seed)


def _measure(
    name: str,
    baseline: LoadedModel,
    candidate: LoadedModel,
    control: TextModel | None,
    data: Splits,
    seconds: float,
) -> tuple[Measurements, Measurements, tuple[Row, ...]]:
    """The candidate's measurements, the baseline's, and the rows of the report."""
    contenders = (Contender("baseline", baseline), Contender(name, candidate))
    label = f"baseline in {candidate.model.kind}, fp32"
    measured, times = side_by_side(contenders, data, seconds, {label: control} if control else None)
    was, now = measured["baseline"], measured[name]
    rows = [Row(each.label, measured[each.label], kind=each.loaded.model.kind) for each in contenders]
    if control is not None:
        gains = MEASURES[control.task].gains
        for ratio, gain in gains(times["baseline"], times[label]).items():
            now[ratio + names.OF_RUNTIME] = gain
        for ratio, gain in gains(times[label], times[name]).items():
            now[ratio + names.IN_SAME_RUNTIME] = gain
        rows.insert(1, Row(label, measured[label], kind=control.kind))
    return now, was, tuple(rows)


def _empty(folder: str, name: str) -> Path:
    path = Path(folder) / name
    path.mkdir()
    return path
