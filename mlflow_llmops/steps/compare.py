"""Several models side by side in one run, measured or as stored: the evidence that the gate judges, and a report."""

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient
from rich.text import Text

from mlflow_llmops import names
from mlflow_llmops.data.load import load_data
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.measure.energy import UNREADABLE
from mlflow_llmops.measure.limits import Wanted
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.measure.speed import Score
from mlflow_llmops.models.tasks import task_named
from mlflow_llmops.registry.versions import get_version, versions_of
from mlflow_llmops.steps._options import (
    DOCSTRINGS,
    Data,
    EvalData,
    LabelColumn,
    MeasureSeconds,
    Outcome,
    Overlap,
    RecommendedDrop,
    RecommendedLatency,
    RecommendedSize,
    RecommendedSpeedup,
    TextColumn,
    TrustRemoteCode,
    data_params,
    said_of_overlap,
)
from mlflow_llmops.steps._side_by_side import Contender, counted, log_pictures, side_by_side
from mlflow_llmops.steps._tasks import MEASURES
from mlflow_llmops.tracking.comparison import Comparison, Made
from mlflow_llmops.tracking.lineage import dataset_of, in_this_store, log_data
from mlflow_llmops.tracking.loaded import load_model
from mlflow_llmops.tracking.report import Row, label_of, table
from mlflow_llmops.tracking.run import log_measurements, start_run
from mlflow_llmops.tracking.stored import made_in, runs_of, runs_of_experiment, stored_comparison


def compare(
    name: Annotated[str | None, "registered model whose versions are compared; auto: none"] = None,
    versions: Annotated[
        str | None,
        "their numbers, with commas, to measure them in turn, the baseline first; auto: read what is stored",
    ] = None,
    data: Data = DOCSTRINGS,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    eval_data: EvalData = None,
    overlap: Overlap = "drop",
    measure_seconds: MeasureSeconds = 20.0,
    trust_remote_code: TrustRemoteCode = False,
    runs: Annotated[str | None, "run ids, with commas, whose stored numbers are compared; auto: none"] = None,
    experiment: Annotated[str | None, "experiment all of whose runs are compared as stored; auto: none"] = None,
    max_quality_drop: RecommendedDrop = None,
    min_speedup: RecommendedSpeedup = None,
    max_latency_p95_ms: RecommendedLatency = None,
    max_size_mib: RecommendedSize = None,
) -> Outcome:
    """A report with a recommended model: of versions measured interleaved in one run, or of what runs have stored."""
    given = {"name": name, "runs": runs, "experiment": experiment}
    wanted = Wanted(max_quality_drop, min_speedup, max_latency_p95_ms, max_size_mib)
    params = {f"compare.{key}": value for key, value in {**given, "versions": versions, **wanted.limits}.items()}
    if versions is not None:
        params |= data_params("compare", data, text_column, label_column, eval_data, overlap)
    with start_run("compare", {names.VERB: "compare"}, params) as run:
        _check_sources(given, versions)
        if versions is None:
            found = replace(_stored(name, runs, experiment), wanted=wanted)
            mlflow.set_tag(names.DATA_FINGERPRINT, found.data_fingerprint)
            found.log()
            for row in found.rows:
                log_measurements(row.measured, f"{metric_safe(row.label)}/")
        else:
            contenders, made = _versions(str(name), versions, trust_remote_code)
            labelled = task_named(_task(contenders)).labelled
            splits = load_data(data, text_column, label_column if labelled else None, eval_data, overlap)
            rows, notes = measure_contenders(contenders, splits, measure_seconds)
            found = publish(rows, notes, splits, run.info.run_id, name, wanted, made)
    said = Text("\n".join([found.choice.said, *found.notes]))
    return Outcome(run.info.run_id, (table(found.rows, "Comparison"), said), {"rows": found.rows, "report": found})


def measure_contenders(
    contenders: Sequence[Contender], data: Splits, seconds: float, others: Mapping[str, Score] | None = None
) -> tuple[list[Row], list[str]]:
    """Quality of what a fresh process answers, and speed with all models in turn; the first is the baseline.

    Gives the rows of the table and what must be said under it; `others` are timed along, and their rows come last. The
    per-class table and the confusion picture go to the active run.
    """
    if len({contender.label for contender in contenders}) != len(contenders):
        raise ConfigError("two models of a comparison have the same label")
    asked = [contender if contender.loaded.answers else _ask(contender, data) for contender in contenders]
    measured, times = side_by_side(asked, data, seconds, others=others)
    log_pictures(asked, data)
    rows = [
        Row(
            each.label,
            measured[each.label],
            each.version,
            each.loaded.model.kind,
            each.loaded.reference,
            each.loaded.model_id,
        )
        for each in asked
    ]
    rows += [Row(label, measured[label], kind="pyfunc") for label in others or {}]
    ended = times[asked[0].label].ended
    mlflow.set_tag(names.MEASURING, ended)
    return rows, [*_notes(asked[0], data, rows), f"timing: {ended}"]


def publish(
    rows: Sequence[Row],
    notes: Sequence[str],
    data: Splits,
    run_id: str,
    name: str | None,
    wanted: Wanted | None = None,
    made: Sequence[Made] = (),
    apart: bool = True,
) -> Comparison:
    """Log the comparison to the active run, and point each version at it as its evidence; `apart` makes a nested run of
    each model, which links its numbers to the logged model."""
    log_data(data)
    for row in rows:
        log_measurements(row.measured, f"{metric_safe(row.label)}/")
    if apart:
        _log_apart(rows, data)
    hardware = hardware_tags()[names.HARDWARE]
    found = Comparison(rows, notes, data.fingerprint, hardware, wanted or Wanted(), made)
    found.log()
    for row in rows:
        if name and row.version:
            _point_at(name, row.version, run_id)
    return found


def _log_apart(rows: Sequence[Row], data: Splits) -> None:
    """A nested run for each model: MLflow compares runs and not the parts of one, by the names that all verbs use."""
    dataset = dataset_of(data)
    for row in rows:
        tags = {names.KIND: row.kind, names.DATA_FINGERPRINT: data.fingerprint}
        with start_run(label_of(row), tags, {}):
            log_measurements(row.measured, "", in_this_store(row.model_id), dataset)


def metric_safe(label: str) -> str:
    """As MLflow takes it in a metric's name, which must be no path out of its folder."""
    return posixpath.normpath(re.sub(r"[^\w\-. :/]", "_", label)).lstrip("./")


def _check_sources(given: Mapping[str, str | None], versions: str | None) -> None:
    asked = [key for key, value in given.items() if value is not None]
    if len(asked) != 1:
        raise ConfigError(f"give one of name, runs and experiment; given: {', '.join(asked) or 'none'}")
    if versions is not None and asked != ["name"]:
        raise ConfigError(f"versions={versions} are those of a registered model: give name, and not {asked[0]}")


def _stored(name: str | None, runs: str | None, experiment: str | None) -> Comparison:
    if name is not None:
        numbers = {str(v.run_id): str(v.version) for v in versions_of(name) if v.run_id}
        if not numbers:
            raise ConfigError(f"name={name}: it has no registered version that came from a run")
        return stored_comparison(runs_of(numbers), numbers)
    if runs is not None:
        return stored_comparison(runs_of(dict.fromkeys(_split(runs))))
    return stored_comparison(runs_of_experiment(str(experiment)))


def _split(listed: str) -> list[str]:
    return [part.strip() for part in listed.split(",") if part.strip()]


def _versions(name: str, versions: str, trust_remote_code: bool) -> tuple[list[Contender], list[Made]]:
    """What is compared, and what each method on the way to it gave, as far as the runs are still there."""
    numbers = _split(versions)
    if len(numbers) < 2:
        raise ConfigError(f"versions={versions!r}: give at least two numbers, the baseline first")
    registered = [get_version(name, number) for number in numbers]
    contenders = [
        Contender(
            _label(v),
            load_model(f"models:/{name}/{v.version}", None, trust_remote_code=trust_remote_code),
            str(v.version),
        )
        for v in registered
    ]
    of_run = {str(v.run_id): str(v.version) for v in registered if v.run_id}
    return contenders, made_in(runs_of(of_run), of_run)


def _task(contenders: Sequence[Contender]) -> str:
    """The one that all were logged for. Raises ConfigError where they differ."""
    tasks = {contender.label: contender.loaded.model.task for contender in contenders}
    if len(set(tasks.values())) > 1:
        said = ", ".join(f"{label} is for {task}" for label, task in tasks.items())
        raise ConfigError(f"versions of different tasks cannot be compared: {said}")
    return next(iter(tasks.values()))


def _label(version: ModelVersion) -> str:
    return f"v{version.version} {version.tags.get(names.METHOD, 'model')}"


def _point_at(name: str, version: str, run_id: str) -> None:
    """The last comparison is the evidence; how many there were is kept, since one of many may pass by luck."""
    client = MlflowClient()
    before = int(get_version(name, version).tags.get(names.COMPARISONS, 0))
    client.set_model_version_tag(name, version, names.EVIDENCE_RUN, run_id)
    client.set_model_version_tag(name, version, names.COMPARISONS, str(before + 1))


def _ask(contender: Contender, data: Splits) -> Contender:
    if contender.loaded.folder is None:
        raise ConfigError(f"{contender.label} is no logged model; log it by one of the verbs first")
    answers = MEASURES[contender.loaded.model.task].ask(contender.loaded.folder, data)
    return replace(contender, loaded=replace(contender.loaded, answers=answers))


def _notes(first: Contender, data: Splits, rows: Sequence[Row]) -> list[str]:
    """The baseline beside its rival, where the task has one, and every model that gained nothing."""
    notes = [
        *MEASURES[first.loaded.model.task].beside(first.label, first.loaded, data, rows[0].measured),
        f"quality on {len(data.test)} texts of {data.source}",
        *said_of_overlap(data),
        *([] if names.JOULES_PER_TEXT in rows[0].measured else [UNREADABLE]),
    ]
    for row in rows[1:]:
        gains = [row.measured.get(name) for name in (names.SPEEDUP, names.GENERATION_SPEEDUP)]
        faster = any(isinstance(gain, Estimate) and gain.low > 1 for gain in gains)
        if not faster and names.SIZE_RATIO in row.measured and counted(row.measured, names.SIZE_RATIO) >= 1:
            notes.append(f"{row.label} did not help: neither faster nor smaller than the baseline")
    return notes
