"""One method applied, measured against its baseline, and proven by reloading: the core of every verb."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import torch

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import GateFailed
from mlflow_llmops.flavors.by_kind import log_text_model
from mlflow_llmops.hardware import lacking, this_cpu
from mlflow_llmops.measure.batch_drift import NO_DRIFT
from mlflow_llmops.measure.measurement import Measurements, flat
from mlflow_llmops.measure.token_budget import calibrate_budget
from mlflow_llmops.measure.verdict import verdict
from mlflow_llmops.methods import table
from mlflow_llmops.methods.method import Method
from mlflow_llmops.methods.prune._pruning import Pruning
from mlflow_llmops.methods.quantize._quantization import Quantization
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.registry.versions import describe, register
from mlflow_llmops.steps._accuracy_control import Bounded, apply_within_bound
from mlflow_llmops.steps._beside import measure_beside
from mlflow_llmops.steps._full_precision import in_full_precision
from mlflow_llmops.steps._hardware import hardware_warning, tell
from mlflow_llmops.steps._part import hand_out
from mlflow_llmops.steps._pruned import apply_pruning
from mlflow_llmops.steps._side_by_side import Contender, counted, log_pictures, side_by_side, with_answers
from mlflow_llmops.steps._speed_grid import log_speed_grid
from mlflow_llmops.steps._tasks import MEASURES
from mlflow_llmops.tracking.card import ModelCard, card_uri, log_card
from mlflow_llmops.tracking.licence import licence_of
from mlflow_llmops.tracking.lineage import dataset_of, log_data
from mlflow_llmops.tracking.loaded import LoadedModel, load_model
from mlflow_llmops.tracking.phases import Phases
from mlflow_llmops.tracking.references import download
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
    card: ModelCard
    version: str | None = None
    missed: str = ""
    """The bound of the user's that the result does not hold, in words."""


def apply_method(
    name: str,
    options: Mapping[str, Any],
    source: LoadedModel,
    data: Splits,
    run_id: str,
    chain: str = "",
    seed: int = 0,
    measure_seconds: float = 10.0,
    grid_seconds: float = 0.0,
) -> Link:
    """Apply the method `name` to `source` inside the active run, and log, measure and prove the result.

    `grid_seconds` are for speed by batch size and length on top; 0 leaves it out.

    Raises ArtifactMismatch where the logged model does not answer as the one in memory.
    """
    phases = Phases()
    method = table.build(name, options)
    chosen = {f"{name}.{option.name}": getattr(method, option.name) for option in method.options()}
    log_params({**chosen, f"{name}.seed": seed})
    log_data(data)
    method.check(source.model, data)
    came = lineage(source)
    source, cast = in_full_precision(source)
    warning = hardware_warning(name, method)
    if warning:
        mlflow.set_tag(names.HARDWARE_WARNING, warning)
    notes = tell(name, method, source.model, cast)
    if notes:
        mlflow.set_tag(names.NOTES, notes)
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory(prefix="llmops-") as folder:
        with run_session(run_id) as offered:
            hand_out(source.model, data, offered.work)
            with phases.doing(names.WORK_SECONDS):
                bounded = _apply(method, source.model, data, folder, seed)
        return proven_link(
            {name: method},
            source,
            bounded,
            data,
            run_id,
            Path(folder),
            came,
            chain,
            seed,
            measure_seconds,
            grid_seconds,
            phases,
        )


def proven_link(
    methods: Mapping[str, Method],
    source: LoadedModel,
    bounded: Bounded,
    data: Splits,
    run_id: str,
    folder: Path,
    came: Mapping[str, str],
    chain: str = "",
    seed: int = 0,
    measure_seconds: float = 10.0,
    grid_seconds: float = 0.0,
    phases: Phases | None = None,
) -> Link:
    """Log, measure and prove what `methods`, one or a chain of them, made of `source`, inside the active run.

    `came` is the lineage of the source, `folder` one to work in, `phases` the watch of a run that began before.

    Raises ArtifactMismatch as `apply_method` does.
    """
    name, method = list(methods.items())[-1]
    phases = phases or Phases()
    made = bounded.model
    with phases.doing(names.WORK_SECONDS):
        calibrate_budget(made, data.train.texts)
    info = log_text_model(made)
    with phases.doing(names.PROOF_SECONDS):
        logged = _proven(made, info.model_uri, data)
    with phases.doing(names.MEASURING_SECONDS):
        baseline = with_answers(source, data, _empty(folder, "baseline"))
        with _control(name, made.kind, source.model, data, _empty(folder, "control"), seed) as control:
            measured, baseline_measured, rows = _measure(
                name, baseline, logged, control, data, measure_seconds, grid_seconds, phases
            )
        beside = [
            measure_beside(each, baseline, logged, data, measure_seconds, partial(_empty, folder))
            for each in methods.values()
        ]
    for each in beside:
        measured |= each.now
        baseline_measured |= each.was
    measured |= bounded.measured
    tested = dataset_of(data)
    log_measurements(baseline_measured, names.BASELINE_PREFIX, info.model_id, tested)
    log_measurements(measured, "", info.model_id, tested)
    said = verdict(measured, method.compresses, lacking(method.wants, this_cpu()))
    said = "; ".join(filter(None, (said, bounded.said, *(each.said for each in beside))))
    mlflow.set_tags(
        {
            names.VERDICT: said,
            names.KIND: made.kind,
            names.RELOADED: "same outputs",
            **came,
        }
    )
    mlflow.log_text(markdown(rows, f"{name}: {said}", _notes(rows)), names.REPORT)
    mlflow.log_dict({row.label: flat(row.measured) for row in rows}, names.MEASUREMENTS)
    tags = {
        names.METHOD: name,
        names.TASK: made.task,
        names.CHAIN: chain or name,
        names.VERDICT: said,
        names.DATA_FINGERPRINT: data.fingerprint,
        **came,
    }
    card = ModelCard(
        name,
        tags[names.CHAIN],
        _options_of(methods) | {"seed": seed},
        made.task,
        made.kind,
        made.labels,
        source.reference,
        came.get(names.SOURCE_MODEL_ID),
        tags.get(names.LICENCE),
        said,
        rows,
        {"source": data.source, "fingerprint": data.fingerprint}
        | {split: getattr(data, split).fingerprint for split in ("train", "dev", "test")},
        run_id,
        logged.reference,
    )
    log_measurements(phases.measurements())
    return Link(name, run_id, logged, measured, said, rows, tags, card, missed=bounded.missed)


def _options_of(methods: Mapping[str, Method]) -> dict[str, Any]:
    """For the card: those of a chain behind the names of its methods."""
    return {
        option.name if len(methods) == 1 else f"{name}.{option.name}": getattr(method, option.name)
        for name, method in methods.items()
        for option in method.options()
    }


def _apply(method: Method, model: TextModel, data: Splits, folder: str, seed: int) -> Bounded:
    """As it is, or with as much of it as its bound on quality allows."""
    if isinstance(method, Pruning):
        return apply_pruning(method, model, data, partial(_empty, folder), seed)
    if isinstance(method, Quantization) and method.max_quality_drop is not None:
        return apply_within_bound(method, model, data, partial(_empty, folder), seed)
    return Bounded(method.apply(model, data, _empty(folder, "candidate"), seed), "", {})


def check_bound(link: Link, name: str) -> None:
    """Raises GateFailed for a result that misses its own bound: it stays in its run, and is no version of `name`."""
    if link.missed:
        raise GateFailed(
            f"{link.name} is not registered as {name}: {link.missed}; the best that was found is "
            f"{link.result.reference}: give a wider bound, more time, or another method"
        )


def registered(link: Link, name: str) -> Link:
    """Its model as a new version of `name`, whose card is there before it and has its number after."""
    card = replace(link.card, name=name)
    log_card(card)
    tags = {**link.tags, names.MODEL_CARD: card_uri(card.run_id)}
    card = replace(card, version=register(link.result.reference, name, tags))
    log_card(card)
    describe(name, card.version, card.short())
    return replace(link, version=card.version, card=card)


def lineage(source: LoadedModel) -> dict[str, str]:
    """An alias moves, so the logged model behind it is kept too."""
    known = {names.SOURCE_MODEL_ID: source.model_id, names.LICENCE: licence_of(source)}
    return {names.SOURCE_MODEL: source.reference, **{key: value for key, value in known.items() if value}}


def _proven(made: TextModel, reference: str, data: Splits) -> LoadedModel:
    """The logged model with what it answers in a fresh process, which must be what the one in memory does."""
    task = MEASURES[made.task]
    answers = task.ask(download(reference), data)
    task.prove(made, answers, data)
    logged = load_model(reference, made.task, trust_remote_code=made.brings_code)
    task.prove_loaded(made, logged.model, data)
    # how a network is run is no part of its artifact
    return replace(logged, answers=answers, model=replace(logged.model, compiled=made.compiled))


@contextmanager
def _control(
    name: str, kind: str, source: TextModel, data: Splits, folder: Path, seed: int
) -> Iterator[TextModel | None]:
    """The baseline at full precision in the candidate's runtime: what a change of runtime gives without compression."""
    if kind == source.kind or name.startswith("export."):
        yield None
    else:
        control = table.build(f"export.{kind}", {}).apply(source, data, folder, seed)
        calibrate_budget(control, data.train.texts)  # so that no gain of the budget's counts as compression's
        yield control


def _measure(
    name: str,
    baseline: LoadedModel,
    candidate: LoadedModel,
    control: TextModel | None,
    data: Splits,
    seconds: float,
    grid_seconds: float,
    phases: Phases,
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
    with phases.doing(names.TRACKING_SECONDS):
        log_pictures(contenders, data)
    mlflow.set_tag(names.MEASURING, times[name].ended)
    if grid_seconds:
        controls = {label: control} if control else {}
        models = {"baseline": baseline.model, **controls, name: candidate.model}
        now |= log_speed_grid(models, times, data, grid_seconds)
    return now, was, tuple(rows)


def _notes(rows: Sequence[Row]) -> list[str]:
    """What the report's columns have no room for."""
    drifts = {
        row.label: counted(row.measured, names.PADDING_DRIFT) for row in rows if names.PADDING_DRIFT in row.measured
    }
    if max(drifts.values(), default=0.0) <= NO_DRIFT:
        return []
    return [
        "padding alone moves a probability by up to: " + ", ".join(f"{each:.2g} ({of})" for of, each in drifts.items())
    ]


def _empty(folder: str | Path, name: str) -> Path:
    path = Path(folder) / name
    path.mkdir()
    return path
