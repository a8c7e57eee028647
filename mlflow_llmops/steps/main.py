"""The main job: a teacher, a chain of methods, a comparison, a promotion and a scored table, in one run."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import mlflow
import pandas as pd
from rich.text import Text

from mlflow_llmops import names
from mlflow_llmops.data.load import load_data
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ConfigError, GateFailed
from mlflow_llmops.measure.gates import Limits
from mlflow_llmops.measure.limits import Wanted
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.methods import table
from mlflow_llmops.models.scratch import SCRATCH
from mlflow_llmops.registry.versions import check_name
from mlflow_llmops.scoring.check import check_tables
from mlflow_llmops.steps._chain_link import Link, apply_method, check_bound, registered
from mlflow_llmops.steps._hardware import warn
from mlflow_llmops.steps._options import (
    DOCSTRINGS,
    Data,
    EvalData,
    LabelColumn,
    MaxQualityDrop,
    MeasureSeconds,
    MinSpeedup,
    Model,
    Outcome,
    Overlap,
    Seed,
    TextColumn,
    TrustRemoteCode,
    data_params,
)
from mlflow_llmops.steps._side_by_side import Contender
from mlflow_llmops.steps.compare import measure_contenders, publish
from mlflow_llmops.steps.promote import promote, weigh
from mlflow_llmops.steps.score import score
from mlflow_llmops.tracking.loaded import load_model
from mlflow_llmops.tracking.references import check_there
from mlflow_llmops.tracking.report import Row
from mlflow_llmops.tracking.report import table as shown_table
from mlflow_llmops.tracking.run import log_measurements, start_run
from mlflow_llmops.tracking.stored import made_in, runs_of

TEACHER = "finetune.full"


def main(
    model: Model = SCRATCH,
    data: Data = DOCSTRINGS,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    eval_data: EvalData = None,
    overlap: Overlap = "drop",
    methods: Annotated[str, "methods after finetune.full, each on the result of the one before, with commas"] = (
        "distill.logits,prune.neurons,quantize.int8_static"
    ),
    set: Annotated[
        str | None, "their options, as prune.neurons.fraction=0.3,finetune.full.epochs=2; auto: none"
    ] = None,
    register_as: Annotated[str, "registered model that gets every result as a version"] = "docstrings-classifier",
    max_quality_drop: MaxQualityDrop = 0.02,
    min_speedup: MinSpeedup = 1.0,
    score_input: Annotated[str | None, "table that the winner scores; auto: the texts of the test split"] = None,
    score_output: Annotated[str, "Parquet folder for the scored rows; replaced where it exists"] = "scored.parquet",
    measure_seconds: MeasureSeconds = 10.0,
    trust_remote_code: TrustRemoteCode = False,
    seed: Seed = 0,
) -> Outcome:
    """Train a teacher, compress it step by step, compare, promote the best that passes the gate, score a table."""
    chain = [TEACHER, *(method.strip() for method in methods.split(",") if method.strip())]
    params = {
        "main.model": model,
        "main.methods": methods,
        "main.seed": seed,
        "main.set": set,
        **data_params("main", data, text_column, label_column, eval_data, overlap),
    }
    with start_run("main", {names.VERB: "main", names.TASK: "text-classification"}, params) as run:
        options = _options(set, chain)
        _check_chain(chain, options)
        check_name(register_as)
        check_tables(score_input, score_output, text_column)
        check_there(model)  # before the data, which may take long to read
        splits = load_data(data, text_column, label_column, eval_data, overlap)
        source = load_model(model, data=splits, trust_remote_code=trust_remote_code)
        links: list[Link] = []
        for position, name in enumerate(chain):
            done = " > ".join(chain[: position + 1])
            tags = {names.VERB: name.split(".")[0], names.METHOD: name, names.TASK: "text-classification"}
            with start_run(name, tags, {}) as child:
                link = apply_method(
                    name,
                    options.get(name, {}),
                    source,
                    splits,
                    child.info.run_id,
                    done,
                    seed,
                    measure_seconds,
                )
            check_bound(link, register_as)
            links.append(link)
            source = link.result
        links = [registered(link, register_as) for link in links]  # all or none
        rows, notes = _compare(
            links, splits, run.info.run_id, register_as, 2 * measure_seconds, Wanted(max_quality_drop=max_quality_drop)
        )
        shown = shown_table(rows, "Comparison with the teacher")
        limits = Limits(max_quality_drop, min_speedup)
        try:
            winner, why = _choose(rows, register_as, limits)
        except GateFailed as refused:
            refused.shown = (shown, Text("\n".join(notes)))
            raise
        _promote(register_as, winner, limits)
        scored = _score(register_as, score_input, score_output, splits, text_column)
        log_measurements(rows[0].measured, names.BASELINE_PREFIX)
        log_measurements(winner.measured)
        mlflow.set_tag(names.VERDICT, f"version {winner.version}: {why}")
    said = [
        *notes,
        f"winner: version {winner.version} ({winner.label}) {why}",
        f"it is in Production as models:/{register_as}@champion",
    ]
    return Outcome(
        run.info.run_id,
        (shown, Text("\n".join(said)), *scored.shown),
        {"rows": rows, "winner": winner.version},
    )


def _options(text: str | None, chain: list[str]) -> dict[str, dict[str, str]]:
    """Read `prune.neurons.fraction=0.3,...`: the part before the last dot is the method."""
    options: dict[str, dict[str, str]] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        key, equals, value = part.strip().partition("=")
        method, _, option = key.rpartition(".")
        if not equals or method not in chain:
            raise ConfigError(f"set={part.strip()!r}: write method.option=value, with a method of: {', '.join(chain)}")
        options.setdefault(method, {})[option] = value
    return options


def _check_chain(chain: list[str], options: Mapping[str, Mapping[str, Any]]) -> None:
    """Everything that can be known before the first minute of work."""
    if len(chain) == 1:
        raise ConfigError(f"methods: give at least one after {TEACHER}, or run the finetune verb alone")
    kind = "torch"
    for name in chain:
        method = table.build(name, options.get(name, {}))
        warn(name, method)
        if method.takes != kind:
            raise ConfigError(f"methods: {name} takes a {method.takes} model, and the one before it gives {kind}")
        kind = method.gives
    if len(set(chain)) != len(chain):
        raise ConfigError("methods: the same method stands there twice; give it once")


def _compare(
    links: list[Link], data: Splits, parent: str, register_as: str, seconds: float, wanted: Wanted
) -> tuple[list[Row], list[str]]:
    """All versions against the teacher; the evidence lies in the nested run, table and pictures in the parent too."""
    contenders = [Contender(link.name, link.result, link.version or "") for link in links]
    with start_run("compare", {names.VERB: "compare"}, {}) as run:
        rows, notes = measure_contenders(contenders, data, seconds)
        made = made_in(runs_of(link.run_id for link in links))
        publish(rows, notes, data, run.info.run_id, register_as, wanted, made)
    publish(rows, notes, data, parent, None, wanted, made, apart=False)
    return rows, notes


def _choose(rows: list[Row], name: str, limits: Limits) -> tuple[Row, str]:
    """The fastest version that passes the gate; the teacher itself is no result. Raises GateFailed where none does."""
    refused = []
    for row in sorted(rows[1:], key=lambda row: -_speedup(row).value):
        reasons = weigh(name, row.version, limits, made_from_counts=True, to=names.PRODUCTION)
        if all(reason.passed for reason in reasons):
            return row, f"is the fastest that passes the gate, {_speedup(row)} times the teacher's throughput"
        failed = next(reason for reason in reasons if not reason.passed)
        refused.append(f"version {row.version} ({row.label}): {failed.check}: {failed.measured}")
    raise GateFailed("no version passes the gate, so none is promoted. " + "; ".join(refused))


def _speedup(row: Row) -> Estimate:
    value = row.measured[names.SPEEDUP]
    if not isinstance(value, Estimate):
        raise TypeError("a speed-up is an estimate")
    return value


def _promote(name: str, winner: Row, limits: Limits) -> None:
    for stage in (names.STAGING, names.PRODUCTION):
        bounds: dict[str, Any] = {"max_quality_drop": limits.max_quality_drop, "min_speedup": limits.min_speedup}
        promote(name, winner.version, stage, **bounds, remeasure="never", made_from_counts=True)


def _score(name: str, score_input: str | None, score_output: str, data: Splits, text_column: str) -> Outcome:
    champion = f"models:/{name}@{names.CHAMPION}"
    if score_input:
        return score(champion, score_input, score_output, text_column, overwrite=True)
    with tempfile.TemporaryDirectory(prefix="llmops-score-") as folder:
        path = Path(folder) / "test.parquet"
        pd.DataFrame({text_column: data.test.texts}).to_parquet(path)
        return score(champion, str(path), score_output, text_column, overwrite=True)
