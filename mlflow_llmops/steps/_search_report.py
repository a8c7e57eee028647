"""The trials of a search as a table, a file and a picture, for its run and the terminal."""

from collections.abc import Sequence
from typing import Any

import mlflow
from rich.table import Table

from mlflow_llmops import names
from mlflow_llmops.measure.limits import Wanted
from mlflow_llmops.measure.measurement import Estimate, flat
from mlflow_llmops.search.study import DONE, Trial
from mlflow_llmops.tracking.pareto import pareto_front, pareto_png
from mlflow_llmops.tracking.report import Row, cell, layout_of

IN_TERMINAL = (names.QUALITY_CHANGE, names.LATENCY_P95, names.DISK)
"""Beside the objective: what the limits are about."""


def log_trials(trials: Sequence[Trial], wanted: Wanted, best: Trial | None, space: str) -> None:
    """Write what is known after each trial, so that a killed search has it too."""
    mlflow.log_dict(_as_json(trials, wanted, best, space), names.TRIALS)
    mlflow.log_text(_markdown(trials, wanted, best), names.TRIALS_TABLE)


def log_picture(trials: Sequence[Trial]) -> None:
    """Quality against throughput on dev, the front as a line; nothing where nothing was measured."""
    rows = _rows(trials)
    if not rows:
        return
    figure = pareto_png(rows)
    axes = figure.axes[0]
    axes.set_ylabel(layout_of(rows).axis.replace("the test split", "dev"))
    mlflow.log_figure(figure, names.PARETO_PNG)


def trials_table(trials: Sequence[Trial], wanted: Wanted, best: Trial | None) -> Table:
    """For the terminal: the best first."""
    measured = sorted((each for each in trials if each.outcome == DONE), key=lambda each: -wanted.score(each.measured))
    known = [name for name in (wanted.metric, *IN_TERMINAL) if measured and name in measured[0].measured]
    shown = Table(title=f"Trials on dev, by {wanted.objective}", title_justify="left")
    shown.add_column("chain", overflow="fold", min_width=36)
    for name in dict.fromkeys(known):
        shown.add_column(name.partition("/")[2], justify="right", no_wrap=True)
    shown.add_column("limits", overflow="fold")
    for each in measured:
        cells = [cell(each.measured.get(name), 1) for name in dict.fromkeys(known)]
        shown.add_row(f"{each.number}: {each.chain}", *cells, _kept(each, best))
    return shown


def _rows(trials: Sequence[Trial]) -> list[Row]:
    return [Row(f"trial {each.number}", each.measured) for each in trials if each.outcome == DONE]


def _kept(trial: Trial, best: Trial | None) -> str:
    if best is not None and trial.number == best.number:
        return "kept, the best"
    return trial.why or "kept"


def _markdown(trials: Sequence[Trial], wanted: Wanted, best: Trial | None) -> str:
    rows = _rows(trials)
    columns = layout_of(rows).columns
    front = {row.label for row in pareto_front(rows)} if rows else set()
    asked = [wanted.metric] if wanted.metric not in {name for name, _ in columns.values()} else []
    shown = {**columns, **{name.partition("/")[2]: (name, 1.0) for name in asked}}
    lines = [
        f"# Search: {wanted.objective} within {wanted.said()}",
        "",
        f"| trial | chain | outcome | {' | '.join(shown)} | limits | seconds |",
        f"|---:|---|---|{'---:|' * len(shown)}---|---:|",
    ]
    for each in trials:
        cells = [cell(each.measured.get(name), by) for name, by in shown.values()]
        mark = " (Pareto front)" if f"trial {each.number}" in front else ""
        lines.append(
            f"| {each.number} | {each.chain} | {each.outcome}{mark} | {' | '.join(cells)} | {_kept(each, best)} "
            f"| {each.seconds:.0f} |"
        )
    lines += ["", "± is the wider side of a 95 % interval. Measured on dev, each beside the uncut model.", ""]
    return "\n".join(lines)


def _as_json(trials: Sequence[Trial], wanted: Wanted, best: Trial | None, space: str) -> dict[str, Any]:
    return {
        "wanted": vars(wanted),
        "space": space,
        "best": None if best is None else best.number,
        "trials": [{**vars(each), "measured": flat(each.measured)} for each in trials],
    }


def shown_score(trial: Trial, wanted: Wanted) -> str:
    """What the objective came to, in words."""
    found = trial.measured[wanted.metric]
    if wanted.objective == "size":
        return f"{found:.4g} MiB"
    return (
        f"{found if isinstance(found, Estimate) else format(found, '.4g')} times the uncut model's {wanted.objective}"
    )
