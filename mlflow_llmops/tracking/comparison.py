"""The report of a comparison, the same as a page, as Markdown and as JSON."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mlflow

from mlflow_llmops import names
from mlflow_llmops.measure.limits import Wanted
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.tracking.choice import Choice, choose, fronts, ranked_by
from mlflow_llmops.tracking.pareto import estimate_of, pareto_html, pareto_png
from mlflow_llmops.tracking.report import Row, cell, label_of, layout_of

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1300px; padding: 0 1em; color: #1c1c1c }
table { border-collapse: collapse; display: block; overflow-x: auto } td, th { padding: .3em .7em; white-space: nowrap }
td:not(:first-child), th:not(:first-child) { text-align: right } tr { border-bottom: 1px solid #ddd }
tr.best { background: #e9f6ec; font-weight: 600 }
"""


@dataclass(frozen=True)
class Made:
    """What one method gave on what it was applied to, both measured in its own run."""

    method: str
    source: str
    result: str
    row: Row


@dataclass(frozen=True)
class Comparison:
    """Rows, the baseline first, where they come from, and what is wanted of them."""

    rows: Sequence[Row]
    notes: Sequence[str]
    data_fingerprint: str
    hardware: str
    wanted: Wanted = field(default_factory=Wanted)
    made: Sequence[Made] = ()

    @property
    def choice(self) -> Choice:
        return choose(self.rows, self.wanted)

    def as_json(self) -> dict[str, Any]:
        """The evidence that gates read, and what the page says."""
        choice = self.choice
        return {
            "data_fingerprint": self.data_fingerprint,
            "hardware": self.hardware,
            "baseline": self.rows[0].version,
            "rows": [row.as_json() for row in self.rows],
            "recommended": label_of(choice.recommended) if choice.recommended else None,
            "said": choice.said,
            "lost": choice.lost,
            "fronts": fronts(self.rows),
            "ranked_by": ranked_by(self.rows),
            "steps": [{"method": each.method, "of": each.source, **each.row.as_json()} for each in self.made],
            "notes": list(self.notes),
        }

    def markdown(self) -> str:
        """For the run's artifacts, and wherever Markdown is read."""
        lines = ["# Comparison", "", f"**{self.choice.said}.**", ""]
        for heading, header, rows in self._tables():
            lines += [f"## {heading}", "", f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
            lines += [f"| {' | '.join(text.replace('|', '/') for text in row)} |" for row in rows]
            lines.append("")
        return "\n".join([*lines, *(f"- {note}" for note in self._notes()), ""])

    def page(self) -> str:
        """HTML with its style, script and data inside: it opens without a network."""
        best = self.choice.recommended
        parts = [f"<h1>Comparison</h1><p><strong>{html.escape(self.choice.said)}.</strong></p>"]
        for number, (heading, header, rows) in enumerate(self._tables()):
            marked = label_of(best) if best and number == 0 else None
            body = "".join(f"<tr{' class=best' if row[0] == marked else ''}>{_cells(row, 'td')}</tr>" for row in rows)
            parts.append(f"<h2>{html.escape(heading)}</h2><table><tr>{_cells(header, 'th')}</tr>{body}</table>")
            if number == 0:
                parts.append(f"<h2>Quality against cost</h2>{pareto_html(self.rows)}")
        said = "".join(f"<li>{html.escape(note)}</li>" for note in self._notes())
        head = f'<meta charset="utf-8"><title>Comparison</title><style>{STYLE}</style>'
        return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}<ul>{said}</ul></body></html>'

    def log(self) -> None:
        """Into the active run."""
        mlflow.log_dict(self.as_json(), names.COMPARISON)
        mlflow.log_text(self.markdown(), names.COMPARISON_TABLE)
        mlflow.log_figure(pareto_png(self.rows), names.PARETO_PNG)
        mlflow.log_text(self.page(), names.COMPARISON_PAGE)
        mlflow.set_tag(names.RECOMMENDED, self.choice.said)

    def _tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Heading, header and rows of each."""
        columns = layout_of(self.rows).columns
        rows = [
            [label_of(row), *(cell(row.measured.get(name), by) for name, by in columns.values())] for row in self.rows
        ]
        found = [("Models", ["model", *columns], rows)]
        if self.made:
            header = ["step", "on", "times as fast", "the runtime alone", "of the size", "change in quality"]
            found.append(("What each step gave", header, [_made(each) for each in self.made]))
        lost = [[label, why] for label, why in self.choice.lost.items()]
        return [*found, ("What lost, and why", ["model", "why"], lost)] if lost else found

    def _notes(self) -> list[str]:
        by = {names.SPEEDUP: "the paired speed-up against the baseline", names.TEXTS_PER_S: "texts per second"}
        return [
            "± is the wider side of a 95 % interval.",
            *(f"the front of {side}: {', '.join(labels)}" for side, labels in fronts(self.rows).items()),
            f"the recommended model is the first by {by[ranked_by(self.rows)]} among those that keep the limits",
            f"measured on {self.hardware}, on data {self.data_fingerprint}",
            *self.notes,
        ]


def _made(made: Made) -> list[str]:
    row = made.row
    runtime = estimate_of(row, names.RUNTIME_SPEEDUP)
    shown = [cell(row.measured.get(name), 1) for name in (names.SPEEDUP, names.SIZE_RATIO, names.QUALITY_CHANGE)]
    return [made.method, made.source, shown[0], _ratio(runtime), *shown[1:]]


def _ratio(estimate: Estimate | None) -> str:
    return "-" if estimate is None else cell(estimate, 1)


def _cells(texts: Sequence[str], tag: str) -> str:
    return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)
