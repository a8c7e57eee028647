"""Any models side by side in one run: ids, folders, logged and registered ones, and prompts to an endpoint."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from rich.text import Text

from mlflow_llmops import names
from mlflow_llmops.data.load import load_data
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.measure.limits import Wanted
from mlflow_llmops.models.tasks import task_named
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
)
from mlflow_llmops.steps._side_by_side import Contender, with_answers
from mlflow_llmops.steps.compare import measure_contenders, metric_safe, publish
from mlflow_llmops.tracking.loaded import asked, load_model
from mlflow_llmops.tracking.outside import Outside, load_outside, measure_outside
from mlflow_llmops.tracking.references import SCHEMES, download, is_ours
from mlflow_llmops.tracking.report import Row, table
from mlflow_llmops.tracking.run import start_run


def benchmark(
    models: Annotated[
        str,
        "references, with commas, the baseline first: Hugging Face ids, folders, models:/name/3, models:/name@alias, "
        "runs:/id/model; after a text model also any that labels texts, such as those of register_openai",
    ],
    data: Data = DOCSTRINGS,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    eval_data: EvalData = None,
    overlap: Overlap = "drop",
    task: Annotated[str, "text-classification or text-generation"] = "text-classification",
    measure_seconds: MeasureSeconds = 20.0,
    max_quality_drop: RecommendedDrop = None,
    min_speedup: RecommendedSpeedup = None,
    max_latency_p95_ms: RecommendedLatency = None,
    max_size_mib: RecommendedSize = None,
    trust_remote_code: TrustRemoteCode = False,
) -> Outcome:
    """Measure models in turn on the same texts, and log one report with all of them."""
    wanted = Wanted(max_quality_drop, min_speedup, max_latency_p95_ms, max_size_mib)
    params = {"benchmark.models": models, **{f"benchmark.{key}": value for key, value in wanted.limits.items()}}
    params |= data_params("benchmark", data, text_column, label_column, eval_data, overlap)
    with start_run("benchmark", {names.VERB: "benchmark", names.TASK: task}, params) as run:
        references = _references(models)
        labelled = task_named(task).labelled
        splits = load_data(data, text_column, label_column if labelled else None, eval_data, overlap)
        with tempfile.TemporaryDirectory(prefix="llmops-") as folder:
            contenders, others = _loaded(references, task, splits, Path(folder), trust_remote_code)
            timed = {each.label: each.predict for each in others if not each.endpoint}
            rows, notes = measure_contenders(contenders, splits, measure_seconds, timed)
        rows, more = _with_others(rows, contenders[0], others, splits)
        found = publish(rows, [*notes, *more], splits, run.info.run_id, None, wanted)
    said = Text("\n".join([found.choice.said, *found.notes]))
    return Outcome(run.info.run_id, (table(rows, "Benchmark"), said), {"rows": rows, "report": found})


def _references(models: str) -> list[str]:
    references = [part.strip() for part in models.split(",") if part.strip()]
    if len(references) < 2:
        raise ConfigError(f"models={models!r}: give at least two references, the baseline first")
    if len(set(references)) < len(references):
        raise ConfigError(f"models={models!r}: the same reference stands there twice; give it once")
    return references


def _loaded(
    references: Sequence[str], task: str, data: Splits, folder: Path, trust_remote_code: bool
) -> tuple[list[Contender], list[Outside]]:
    """Text models of ours, asked in a fresh process, and all others. Raises ConfigError where another is the first."""
    contenders: list[Contender] = []
    others: list[Outside] = []
    for number, reference in enumerate(references):
        label = metric_safe(reference.replace("@", " "))
        place = download(reference) if reference.startswith(SCHEMES) else None
        if place is not None and not is_ours(place):
            others.append(load_outside(label, reference, place))
            continue
        labels = data if place is None else None
        loaded = load_model(reference, task, labels, trust_remote_code=trust_remote_code)
        if loaded.model.fresh:
            raise ConfigError(f"models: {reference} was never trained, so there is nothing to measure; finetune it")
        (folder / str(number)).mkdir()
        contenders.append(Contender(label, with_answers(loaded, data, folder / str(number))))
    if not contenders or contenders[0].loaded.reference != references[0]:
        raise ConfigError(
            f"models: {references[0]} is the baseline, and no text model of this package; put one that is at the front"
        )
    if others and task != "text-classification":
        raise ConfigError(f"models: {others[0].reference} is no text model of this package; only those can do {task}")
    return contenders, others


def _with_others(
    rows: Sequence[Row], first: Contender, others: Sequence[Outside], data: Splits
) -> tuple[list[Row], list[str]]:
    """Their quality beside their speed, and what must be said of an endpoint."""
    speeds = {row.label: row.measured for row in rows}
    found = [row for row in rows if row.label not in {each.label for each in others}]
    notes = []
    for each in others:
        measured = {**speeds.get(each.label, {}), **measure_outside(each, asked(first.loaded).labels, data)}
        found.append(
            Row(each.label, measured, kind="endpoint" if each.endpoint else "pyfunc", reference=each.reference)
        )
        if each.endpoint:
            notes.append(
                f"{each.label} asks an endpoint: each text once, its texts per second counted from that one pass, "
                "not in turn with the others and without an interval"
            )
    return found, notes
