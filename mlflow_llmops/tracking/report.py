"""Tables and pictures of what was measured, for the run's artifacts and the terminal."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from mlflow_llmops import names
from mlflow_llmops.measure.measurement import Estimate, Measurements, flat

COLUMNS: dict[str, tuple[str, float]] = {
    "accuracy": (names.ACCURACY, 1),
    "change": (names.QUALITY_CHANGE, 1),
    "retained %": (names.RETAINED, 100),
    "macro-F1": (names.F1_MACRO, 1),
    "calibration error": (names.CALIBRATION_ERROR, 1),
    "batch drift": (names.BATCH_DRIFT, 1),
    "texts/s": (names.TEXTS_PER_S, 1),
    "times as fast": (names.SPEEDUP, 1),
    "p50 ms": (names.LATENCY_P50, 1),
    "p95 ms": (names.LATENCY_P95, 1),
    "p99 ms": (names.LATENCY_P99, 1),
    "cold start s": (names.COLD_START, 1),
    "memory MiB": (names.PEAK_MEMORY, 1),
    "disk MiB": (names.DISK, 1),
    "parameters M": (names.PARAMETERS, 1e-6),
}
"""The table's columns: the metric and the factor of its unit there."""
IN_TERMINAL = ("accuracy", "texts/s", "times as fast", "p95 ms", "memory MiB", "disk MiB")
"""Those that a terminal of 120 characters has room for; the Markdown table in the run has all."""


@dataclass(frozen=True)
class Layout:
    """What a table and a picture show, and which quality stands for the others."""

    columns: Mapping[str, tuple[str, float]]
    in_terminal: tuple[str, ...]
    quality: str
    axis: str
    better: int = 1
    """1 where more of it is better, -1 where less is."""


LABELS = Layout(COLUMNS, IN_TERMINAL, names.ACCURACY, "accuracy on the test split")
LANGUAGE = Layout(
    {
        "perplexity": (names.PERPLEXITY, 1),
        "change in nats": (names.QUALITY_CHANGE, 1),
        "tokens right": (names.TOKEN_ACCURACY, 1),
        "ROUGE-L": (names.ROUGE_L, 1),
        **{column: COLUMNS[column] for column in ("retained %", "texts/s", "times as fast")},
        "written tokens/s": (names.GENERATED_TOKENS_PER_S, 1),
        "times as fast at it": (names.GENERATION_SPEEDUP, 1),
        "ms a completion": (names.GENERATION_P50, 1),
        "ms to the first token": (names.FIRST_TOKEN_P50, 1),
        "tokens/s after it": (names.DECODE_TOKENS_PER_S, 1),
        "times as fast to it": (names.PREFILL_SPEEDUP, 1),
        "times as fast after it": (names.DECODE_SPEEDUP, 1),
        **{column: COLUMNS[column] for column in ("memory MiB", "disk MiB", "parameters M")},
    },
    ("perplexity", "texts/s", "times as fast", "written tokens/s", "times as fast at it", "disk MiB"),
    names.PERPLEXITY,
    "perplexity on the test split",
    better=-1,
)


@dataclass(frozen=True)
class Row:
    """One model in a comparison."""

    label: str
    measured: Measurements
    version: str = ""
    kind: str = "torch"
    reference: str = ""
    model_id: str | None = None
    """MLflow's id of the logged model, which its metrics are linked to."""

    def as_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "version": self.version,
            "kind": self.kind,
            "reference": self.reference,
            "metrics": flat(self.measured),
        }


def layout_of(rows: Sequence[Row]) -> Layout:
    """By what the first row measured."""
    return LANGUAGE if rows and names.PERPLEXITY in rows[0].measured else LABELS


def table(rows: Sequence[Row], title: str = "") -> Table:
    """For the terminal: one row a model, the interval's half width beside an estimate."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("model", overflow="fold")
    layout = layout_of(rows)
    for column in layout.in_terminal:
        shown.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        cells = (layout.columns[column] for column in layout.in_terminal)
        shown.add_row(label_of(row), *(cell(row.measured.get(name), by) for name, by in cells))
    return shown


def markdown(rows: Sequence[Row], heading: str, notes: Sequence[str] = ()) -> str:
    """The same as Markdown, with the notes under it."""
    columns = layout_of(rows).columns
    lines = [f"# {heading}", "", f"| model | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for row in rows:
        cells = [cell(row.measured.get(name), by) for name, by in columns.values()]
        lines.append(f"| {label_of(row)} | {' | '.join(cells)} |")
    lines += [
        "",
        "± is the wider side of a 95 % interval. Speed is measured interleaved, on one machine.",
        "",
    ]
    return "\n".join([*lines, *(f"- {note}" for note in notes), ""])


def label_of(row: Row) -> str:
    """With its version, where it is one."""
    named = not row.version or row.label.startswith(f"v{row.version} ")
    return row.label if named else f"v{row.version} {row.label}"


def cell(measured: Estimate | float | None, factor: float) -> str:
    """A number in a table, with the wider half of its interval where it has one."""
    if measured is None:
        return "-"
    if isinstance(measured, Estimate):
        wider = max(measured.high - measured.value, measured.value - measured.low)
        digits = _digits(measured.value * factor)
        shown = f"{wider * factor:,.{digits}f}" if math.isfinite(wider) else "?"
        return f"{measured.value * factor:,.{digits}f} ± {shown}"
    return f"{measured * factor:,.{_digits(measured * factor)}f}"


def _digits(value: float) -> int:
    size = abs(value)
    return 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 4
