"""Measure several models side by side in one run: the evidence that the gate judges."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
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
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.models.tasks import task_named
from mlflow_llmops.registry.versions import get_version
from mlflow_llmops.steps._options import (
    DOCSTRINGS,
    Data,
    EvalData,
    LabelColumn,
    MeasureSeconds,
    Outcome,
    Overlap,
    TextColumn,
    TrustRemoteCode,
    data_params,
    said_of_overlap,
)
from mlflow_llmops.steps._side_by_side import Contender, counted, side_by_side
from mlflow_llmops.steps._tasks import MEASURES
from mlflow_llmops.tracking.lineage import log_data
from mlflow_llmops.tracking.references import load_model
from mlflow_llmops.tracking.report import Row, markdown, pareto_html, pareto_png, table, write_html
from mlflow_llmops.tracking.run import log_measurements, start_run


def compare(
    name: Annotated[str, "registered model whose versions are compared"],
    versions: Annotated[str, "their numbers, with commas; the first is the baseline"],
    data: Data = DOCSTRINGS,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    eval_data: EvalData = None,
    overlap: Overlap = "drop",
    measure_seconds: MeasureSeconds = 20.0,
    trust_remote_code: TrustRemoteCode = False,
) -> Outcome:
    """Measure versions of a registered model interleaved in one run, and log table, pictures and evidence."""
    params = {"compare.name": name, "compare.versions": versions}
    params |= data_params("compare", data, text_column, label_column, eval_data, overlap)
    with start_run("compare", {names.VERB: "compare"}, params) as run:
        numbers = [number.strip() for number in versions.split(",") if number.strip()]
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
        labelled = task_named(_task(contenders)).labelled
        splits = load_data(data, text_column, label_column if labelled else None, eval_data, overlap)
        rows, notes = measure_contenders(contenders, splits, measure_seconds)
        publish(rows, notes, splits, run.info.run_id, name)
    return Outcome(run.info.run_id, (table(rows, "Comparison"), Text("\n".join(notes))), {"rows": rows})


def measure_contenders(contenders: Sequence[Contender], data: Splits, seconds: float) -> tuple[list[Row], list[str]]:
    """Quality of what a fresh process answers, and speed with all models in turn; the first is the baseline.

    Gives the rows of the table and what must be said under it.
    """
    if len({contender.label for contender in contenders}) != len(contenders):
        raise ConfigError("two models of a comparison have the same label")
    asked = [contender if contender.loaded.answers else _ask(contender, data) for contender in contenders]
    measured, _ = side_by_side(asked, data, seconds)
    rows = [
        Row(each.label, measured[each.label], each.version, each.loaded.model.kind, reference=each.loaded.reference)
        for each in asked
    ]
    return rows, _notes(asked[0], data, rows)


def publish(rows: Sequence[Row], notes: Sequence[str], data: Splits, run_id: str, name: str | None) -> None:
    """Log the comparison to the active run, and point each version at it as its evidence."""
    log_data(data)
    for row in rows:
        log_measurements(row.measured, f"{row.label}/")
    evidence = {
        "data_fingerprint": data.fingerprint,
        "hardware": hardware_tags()[names.HARDWARE],
        "baseline": rows[0].version,
        "rows": [row.as_json() for row in rows],
    }
    mlflow.log_dict(evidence, names.COMPARISON)
    mlflow.log_text(markdown(rows, "Comparison", notes), names.COMPARISON_TABLE)
    mlflow.log_figure(pareto_png(rows), names.PARETO_PNG)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / names.PARETO_HTML
        write_html(pareto_html(rows), page)
        mlflow.log_artifact(str(page))
    for row in rows:
        if name and row.version:
            _point_at(name, row.version, run_id)


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
    ]
    for row in rows[1:]:
        gains = [row.measured.get(name) for name in (names.SPEEDUP, names.GENERATION_SPEEDUP)]
        faster = any(isinstance(gain, Estimate) and gain.low > 1 for gain in gains)
        if not faster and counted(row.measured, names.SIZE_RATIO) >= 1:
            notes.append(f"{row.label} did not help: neither faster nor smaller than the baseline")
    return notes
