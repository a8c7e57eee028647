"""What each share that was cut cost in quality and gave in speed, as one picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlflow_llmops.measure.measurement import Estimate


@dataclass(frozen=True)
class Point:
    """One cut: the share that went, the quality it left, and how many times as fast it is as nothing cut."""

    fraction: float
    quality: Estimate | float
    speedup: Estimate | None = None
    label: str = ""
    """Which of several ways to cut; one line each."""


def curve_png(points: Sequence[Point], quality: str, before: float | None = None, bound: float | None = None) -> Figure:
    """Quality (named `quality` on its axis) above, measured speed below, by fraction; with what intervals there are.

    `before` is the quality with nothing cut, and `bound` what may be lost of it.
    """
    figure = Figure(figsize=(7, 7), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    labels = list(dict.fromkeys(point.label for point in points))
    for label in labels:
        line = sorted((point for point in points if point.label == label), key=lambda point: point.fraction)
        _line(upper, [(point.fraction, point.quality) for point in line], label)
        _line(lower, [(point.fraction, point.speedup) for point in line if point.speedup is not None], label)
    if before is not None:
        upper.axhline(before, color="black", lw=1, label="nothing cut")
    if before is not None and bound is not None:
        upper.axhline(before - bound, color="gray", ls="--", lw=1, label=f"bound, {bound:g} below")
    lower.axhline(1, color="black", lw=1)
    upper.set_ylabel(quality)
    lower.set(xlabel="fraction that was cut", ylabel="times as fast")
    upper.set_title("What a cut costs and what it gives; measured, 95 % intervals where shown", fontsize="medium")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    if upper.get_legend_handles_labels()[1]:
        upper.legend(fontsize="small")
    return figure


def _line(axes: Axes, values: Sequence[tuple[float, Estimate | float]], label: str) -> None:
    heights = [value.value if isinstance(value, Estimate) else value for _, value in values]
    intervals: Any = [
        [value.value - value.low if isinstance(value, Estimate) else 0.0 for _, value in values],
        [value.high - value.value if isinstance(value, Estimate) else 0.0 for _, value in values],
    ]
    shares = [fraction for fraction, _ in values]
    axes.errorbar(shares, heights, yerr=intervals, marker="o", capsize=3, label=label or None)
