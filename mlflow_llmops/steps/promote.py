"""Take a version past the gate to Staging or Production."""

from collections.abc import Mapping
from typing import Annotated, Any

import mlflow
from mlflow.exceptions import MlflowException
from rich.table import Table
from rich.text import Text

from mlflow_llmops import names
from mlflow_llmops.errors import GateFailed
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.measure.gates import Evidence, Limits, Reason, judge
from mlflow_llmops.registry import promotion
from mlflow_llmops.registry.ancestry import ancestors
from mlflow_llmops.registry.versions import get_version
from mlflow_llmops.steps._options import MaxQualityDrop, MinSpeedup, Outcome
from mlflow_llmops.tracking.run import start_run


def promote(
    name: Annotated[str, "registered model"],
    version: Annotated[str, "the version's number"],
    to: Annotated[str, "Staging or Production"] = names.STAGING,
    max_quality_drop: MaxQualityDrop = 0.02,
    min_speedup: MinSpeedup = 1.0,
    max_latency_p95_ms: Annotated[float | None, "slowest p95 latency that the gate accepts; auto: any"] = None,
    made_from_counts: bool = False,
) -> Outcome:
    """Judge a version on its comparison's evidence; promote it, or exit with 3 and the reasons, nothing changed.

    `made_from_counts`: it may take a place from a version that it was not compared with, if it was compared with one
    that it was made from.
    """
    params = {"promote.name": name, "promote.version": version, "promote.to": to}
    with start_run(f"promote to {to}", {names.VERB: "promote"}, params) as run:
        promotion.check_stage(to)
        limits = Limits(max_quality_drop, min_speedup, max_latency_p95_ms)
        reasons = weigh(name, version, limits, made_from_counts)
        mlflow.log_dict({"version": version, "checks": [vars(reason) for reason in reasons]}, names.GATE)
        passed = all(reason.passed for reason in reasons)
        mlflow.set_tag(names.VERDICT, "passed" if passed else "refused")
        if not passed:
            refused = "; ".join(f"{r.check}: {r.measured}" for r in reasons if not r.passed)
            raise GateFailed(f"version {version} of {name} is not promoted to {to}: {refused}")
        replaced = promotion.promote(name, version, to, reasons, run.info.run_id)
    alias = names.ALIAS_OF_STAGE[to]
    said = f"version {version} of {name} is in {to}, alias {alias}" + (
        f"; version {replaced} is archived" if replaced else ""
    )
    return Outcome(run.info.run_id, (reasons_table(reasons), Text(said)), {"reasons": reasons})


def weigh(name: str, version: str, limits: Limits, made_from_counts: bool = False) -> list[Reason]:
    """The gate's checks on what the version's comparison measured; no comparison is one failed check."""
    tags = get_version(name, version).tags
    run_id = tags.get(names.EVIDENCE_RUN)
    stored = _evidence(run_id) if run_id else None
    row = next((row for row in stored["rows"] if row["version"] == version), None) if stored else None
    if stored is None or row is None:
        return [Reason("compared with a baseline", "never: run the compare step first", False)]
    said, counts = _baseline(name, version, stored["baseline"], tags.get(names.COMPARISONS, "1"), made_from_counts)
    evidence = Evidence(row["metrics"], stored["data_fingerprint"], stored["hardware"], said, counts)
    return judge(evidence, limits, tags.get(names.DATA_FINGERPRINT, ""), hardware_tags()[names.HARDWARE])


def _baseline(name: str, version: str, baseline: str, comparisons: str, made_from_counts: bool) -> tuple[str, bool]:
    """What the version was compared with, in words, and whether that is enough: one that holds a place, or any other
    while nobody holds one."""
    if baseline == version:
        return "it is the baseline of its own comparison", False
    holders = {holder for stage in promotion.STAGES if (holder := promotion.holder(name, stage))} - {version}
    said = f"version {baseline}, in the last of {comparisons} comparison(s)"
    if not holders or baseline in holders:
        return said, True
    held = " or ".join(sorted(holders))
    if made_from_counts and baseline in ancestors(name, version):
        return f"{said}, which it was made from; not with version {held}, which holds a place", True
    return f"{said}; compare it with version {held}, which holds a place", False


def reasons_table(reasons: list[Reason]) -> Table:
    """For the terminal."""
    shown = Table(title="Gate", title_justify="left")
    for column in ("check", "measured", "outcome"):
        shown.add_column(column)
    for reason in reasons:
        shown.add_row(reason.check, reason.measured, "passed" if reason.passed else "FAILED")
    return shown


def _evidence(run_id: str) -> Mapping[str, Any] | None:
    """The file that a comparison's run holds."""
    try:
        stored: Mapping[str, Any] = mlflow.artifacts.load_dict(f"runs:/{run_id}/{names.COMPARISON}")
    except MlflowException:  # deleted, or a run that compared nothing: the gate fails on it, and says so
        return None
    return stored
