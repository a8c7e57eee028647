"""Which of several measured models to take under a user's limits, and why each other one lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mlflow_llmops import names
from mlflow_llmops.measure.limits import Missed, Wanted, distance, said_missed
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.tracking.pareto import SIDES, Side, estimate_of, measured_sides, pareto_front
from mlflow_llmops.tracking.report import LANGUAGE, Row, label_of, layout_of


@dataclass(frozen=True)
class Choice:
    """The recommended row, or None where no row keeps the limits, in one sentence; and what every other lost by."""

    recommended: Row | None
    said: str
    lost: dict[str, str]


def choose(rows: Sequence[Row], wanted: Wanted) -> Choice:
    """The fastest row that is proven to keep the limits; the first row is the baseline, which has no drop."""
    speed = ranked_by(rows)
    if layout_of(rows) is LANGUAGE:
        wanted = replace(wanted, task="text-generation")
    failed = {
        label_of(row): (wanted.asks_of_speed() if row is rows[0] else wanted).missed(row.measured) for row in rows
    }
    kept = [row for row in rows if not failed[label_of(row)] and estimate_of(row, speed) is not None]
    kept.sort(key=lambda row: _value(row, speed), reverse=True)
    best = kept[0] if kept else None
    lost = {label_of(row): _why(row, best, rows, failed[label_of(row)], speed) for row in rows if row is not best}
    if best is not None:
        return Choice(best, f"{label_of(best)} is the fastest that keeps the limits ({wanted.said()})", lost)
    nearest = min(failed, key=lambda label: (distance(failed[label]), label))
    over = said_missed(failed[nearest]) or "it was not timed"
    return Choice(None, f"no model keeps the limits ({wanted.said()}); the nearest is {nearest}: {over}", lost)


def ranked_by(rows: Sequence[Row]) -> str:
    """The paired ratio where every row has one, since it is free of how busy the machine was; else the throughput."""
    ratio = names.SPEEDUP
    return ratio if all(ratio in row.measured for row in rows) else names.TEXTS_PER_S


def fronts(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The labels of each Pareto front, by what quality is weighed against."""
    return {side.name: [label_of(row) for row in pareto_front(rows, side)] for side in measured_sides(rows)}


def _why(row: Row, best: Row | None, rows: Sequence[Row], missed: Mapping[str, Missed], speed: str) -> str:
    if missed:
        return said_missed(missed)
    beaten = [each for side in SIDES if (each := _beaten(row, rows, side))]
    if beaten:
        return "; ".join(beaten)
    if best is None or estimate_of(row, speed) is None:
        return "it was not timed beside the others"
    mine, other = _estimate(row, speed), _estimate(best, speed)
    apart = "" if mine.high < other.low else ", though their intervals overlap"
    return f"{label_of(best)} is {other.value / mine.value:.2f} times as fast and keeps the limits{apart}"


def _beaten(row: Row, rows: Sequence[Row], side: Side) -> str:
    """By the best of those that are at least as good and better on this side."""
    layout, mine = layout_of(rows), estimate_of(row, side.metric)
    quality = estimate_of(row, layout.quality)
    if mine is None or quality is None:
        return ""
    better = []
    for other in rows:
        its, good = estimate_of(other, side.metric), estimate_of(other, layout.quality)
        if its is None or good is None or layout.better * good.value < layout.better * quality.value:
            continue
        if side.better * its.value > side.better * mine.value:
            better.append((side.better * its.value, other))
    if not better:
        return ""
    best = max(better, key=lambda pair: pair[0])[1]
    axis = side.axis
    return f"{label_of(best)} is at least as good with a {axis} of {_value(best, side.metric):.4g} to {mine.value:.4g}"


def _estimate(row: Row, name: str) -> Estimate:
    found = estimate_of(row, name)
    if found is None:
        raise TypeError(f"{row.label} has no {name}")
    return found


def _value(row: Row, name: str) -> float:
    return _estimate(row, name).value
