"""Take a version past the gate to Staging or Production."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import mlflow
from annotated_types import Gt
from mlflow.exceptions import MlflowException
from rich.table import Table
from rich.text import Text

from mlflow_llmops import names
from mlflow_llmops.errors import DataError, GateFailed
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.measure.gates import Evidence, Limits, Reason, judge
from mlflow_llmops.registry import promotion
from mlflow_llmops.registry.ancestry import ancestors
from mlflow_llmops.registry.places import STAGES, Places, look
from mlflow_llmops.registry.versions import get_version
from mlflow_llmops.steps._known_data import known_data
from mlflow_llmops.steps._options import (
    EvalData,
    LabelColumn,
    MaxQualityDrop,
    MeasureSeconds,
    MinSpeedup,
    Outcome,
    Overlap,
    RegisteredModel,
    TextColumn,
    TrustRemoteCode,
)
from mlflow_llmops.steps.compare import compare
from mlflow_llmops.tracking.run import start_run

AGAIN = "measured again"


def promote(
    name: RegisteredModel,
    version: Annotated[str, "the version's number"],
    to: Annotated[str, "Staging or Production"] = names.STAGING,
    max_quality_drop: MaxQualityDrop = 0.02,
    min_speedup: MinSpeedup = 1.0,
    max_latency_p95_ms: Annotated[float | None, "slowest p95 latency that the gate accepts; auto: any", Gt(0)] = None,
    remeasure: Annotated[
        Literal["auto", "always", "never"],
        "compare it again with the version that holds the place; auto: where the evidence in store is of other "
        "hardware, other data or another version, or missing",
    ] = "auto",
    data: Annotated[
        str | None, "what is measured on, as compare has it, with the columns below; auto: what its runs name"
    ] = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    eval_data: EvalData = None,
    overlap: Overlap = "drop",
    measure_seconds: MeasureSeconds = 20.0,
    trust_remote_code: TrustRemoteCode = False,
    made_from_counts: bool = False,
) -> Outcome:
    """Judge a version on its comparison's evidence; promote it, or exit with 3 and the reasons, nothing changed.

    `made_from_counts`: it may take a place from a version that it was not compared with, if it was compared with one
    that it was made from.
    """
    params = {"promote.name": name, "promote.version": version, "promote.to": to, "promote.remeasure": remeasure}
    given: dict[str, Any] | None = None
    if data is not None:
        given = {"data": data, "text_column": text_column, "label_column": label_column}
        given |= {"eval_data": eval_data, "overlap": overlap}
    with start_run(f"promote to {to}", {names.VERB: "promote"}, params) as run:
        promotion.check_stage(to)
        get_version(name, version)
        limits = Limits(max_quality_drop, min_speedup, max_latency_p95_ms)
        seen, faults = look(name), promotion.faults(name)
        reasons = weigh(name, version, limits, made_from_counts, to)
        compared: tuple[Any, ...] = ()
        wanting = any(reason.about_evidence for reason in reasons)
        if remeasure == "always" or (remeasure == "auto" and wanting):
            compared, failed = _measure_again(name, version, to, given, measure_seconds, trust_remote_code)
            reasons = [*reasons, *failed] if failed else weigh(name, version, limits, made_from_counts, to)
        shown = (*compared, reasons_table(reasons))
        _log(version, reasons)
        if not all(reason.passed for reason in reasons):
            refused = "; ".join(f"{r.check}: {r.measured}" for r in reasons if not r.passed)
            error = GateFailed(f"version {version} of {name} is not promoted to {to}: {refused}")
            error.shown = shown
            raise error
        replaced = promotion.promote(name, version, to, reasons, run.info.run_id, seen)
    said = [f"version {version} of {name} is in {to}, alias {names.ALIAS_OF_STAGE[to]}"]
    said[0] += f"; version {replaced} is archived" if replaced else ""
    said += [f"put in order on the way: {fault.said}" for fault in faults if fault.actions]
    return Outcome(run.info.run_id, (*shown, Text("\n".join(said))), {"reasons": reasons})


def weigh(
    name: str, version: str, limits: Limits, made_from_counts: bool = False, to: str = names.STAGING
) -> list[Reason]:
    """The gate's checks on what the version's comparison measured; no comparison is one failed check."""
    tags = get_version(name, version).tags
    stored = _evidence(tags)
    row = next((row for row in stored["rows"] if row["version"] == version), None) if stored else None
    if stored is None or row is None:
        return [Reason("compared with a baseline", "never: run the compare step first", False, True)]
    said, counts = _baseline(name, version, stored["baseline"], tags.get(names.COMPARISONS, "1"), made_from_counts, to)
    evidence = Evidence(row["metrics"], stored["data_fingerprint"], stored["hardware"], said, counts)
    return judge(evidence, limits, tags.get(names.DATA_FINGERPRINT, ""), hardware_tags()[names.HARDWARE])


def _baseline(
    name: str, version: str, baseline: str, comparisons: str, made_from_counts: bool, to: str
) -> tuple[str, bool]:
    """What the version was compared with, in words, and whether that is enough: the one that it is to replace, or any
    other while nobody holds a place."""
    if baseline == version:
        return "it is the baseline of its own comparison", False
    rivals = _rivals(look(name), version, to)
    said = f"version {baseline}, in the last of {comparisons} comparison(s)"
    if not rivals or baseline in rivals:
        return said, True
    held = " or ".join(rivals)
    if made_from_counts and baseline in ancestors(name, version):
        return f"{said}, which it was made from; not with version {held}, which holds a place", True
    return f"{said}; compare it with version {held}, which holds a place", False


def _rivals(places: Places, version: str, to: str) -> list[str]:
    """Whom the version has to be compared with, first the one whose place it is to take. The champion stands for an
    empty Staging, and is rival enough for it always."""
    held = {stage: holder for stage in STAGES if (holder := places.holder(stage))}
    wanted = [to] if to == names.PRODUCTION and to in held else sorted(held, key=lambda stage: stage != to)
    return [held[stage] for stage in wanted if held[stage] != version]


def _measure_again(
    name: str, version: str, to: str, given: Mapping[str, Any] | None, seconds: float, trust_remote_code: bool
) -> tuple[tuple[Any, ...], list[Reason]]:
    """Compare the version with the one that holds the place, in a nested run; gives what to show, or the reason why
    that cannot be."""
    candidate, places = get_version(name, version), look(name)
    stored = _evidence(candidate.tags)
    before = [stored["baseline"]] if stored and stored["baseline"] in places.versions else []
    rival = next((each for each in (*_rivals(places, version, to), *before) if each != version), None)
    if rival is None:  # where there is no evidence at all, the gate says already what to do
        return (), [Reason(AGAIN, "there is no version to measure it against", False)] if stored else []
    known = given or known_data(candidate)
    if known is None:
        said = f"no run says which data version {version} was made with: give data=..., as for the compare step"
        return (), [Reason(AGAIN, said, False)]
    try:
        outcome = compare(
            name, f"{rival},{version}", measure_seconds=seconds, trust_remote_code=trust_remote_code, **known
        )
    except DataError as error:
        if given:
            raise
        raise DataError(
            f"{error}. The run of version {version} names these data; give data=... if they moved"
        ) from error
    return outcome.shown, []


def _log(version: str, reasons: Sequence[Reason]) -> None:
    checks = [vars(reason) for reason in reasons]
    mlflow.log_dict({"version": version, "checks": checks}, names.GATE)
    lines = [f"| {r.check} | {r.measured} | {'passed' if r.passed else 'FAILED'} |" for r in reasons]
    text = "\n".join([f"# Gate: version {version}", "", "| check | measured | outcome |", "|---|---|---|", *lines, ""])
    mlflow.log_text(text, names.GATE_TABLE)
    mlflow.set_tag(names.VERDICT, "passed" if all(reason.passed for reason in reasons) else "refused")


def reasons_table(reasons: Sequence[Reason]) -> Table:
    """For the terminal."""
    shown = Table(title="Gate", title_justify="left")
    for column in ("check", "measured", "outcome"):
        shown.add_column(column)
    for reason in reasons:
        shown.add_row(reason.check, reason.measured, "passed" if reason.passed else "FAILED")
    return shown


def _evidence(tags: Mapping[str, str]) -> Mapping[str, Any] | None:
    """The file that the run of the version's last comparison holds."""
    run_id = tags.get(names.EVIDENCE_RUN)
    try:
        stored: Mapping[str, Any] = mlflow.artifacts.load_dict(f"runs:/{run_id}/{names.COMPARISON}") if run_id else {}
    except MlflowException:  # deleted, or a run that compared nothing: the gate fails on it, and says so
        return None
    return stored or None
