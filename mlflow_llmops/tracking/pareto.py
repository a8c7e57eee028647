"""Quality against what it costs, three times: throughput, size, latency; as a picture and to hover over."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import plotly.graph_objects
import plotly.io
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from plotly.subplots import make_subplots

from mlflow_llmops import names
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.tracking.report import Row, cell, label_of, layout_of

matplotlib.use("Agg")


@dataclass(frozen=True)
class Side:
    """What quality is weighed against; `better` is 1 where more of it is, -1 where less is."""

    name: str
    metric: str
    axis: str
    better: int


SIDES = (
    Side("throughput", names.TEXTS_PER_S, "throughput (texts/s)", 1),
    Side("size", names.DISK, "size on disk (MiB)", -1),
    Side("latency", names.LATENCY_P95, "p95 latency of one text (ms)", -1),
)


def estimate_of(row: Row, name: str) -> Estimate | None:
    """What was measured; a number that was counted has no width. None where it was not measured."""
    measured = row.measured.get(name)
    return Estimate(measured, measured, measured) if isinstance(measured, float | int) else measured


def measured_sides(rows: Sequence[Row]) -> list[Side]:
    """Those that at least one row has a number for."""
    return [side for side in SIDES if any(side.metric in row.measured for row in rows)]


def pareto_front(rows: Sequence[Row], side: Side = SIDES[0]) -> list[Row]:
    """The rows that no other beats in both quality and this side, the least of it first."""
    layout = layout_of(rows)
    points = []
    for row in rows:
        quality, other = estimate_of(row, layout.quality), estimate_of(row, side.metric)
        if quality is not None and other is not None:
            points.append((row, layout.better * quality.value, side.better * other.value))
    front = [
        (other, row)
        for row, quality, other in points
        if not any((q >= quality and o >= other and (q, o) != (quality, other)) for _, q, o in points)
    ]
    return [row for _, row in sorted(front, key=lambda pair: side.better * pair[0])]


def pareto_png(rows: Sequence[Row]) -> Figure:
    """A panel for each side with both intervals, the front as a line."""
    sides, layout = measured_sides(rows), layout_of(rows)
    figure = Figure(figsize=(1 + 5 * len(sides), 5), layout="constrained")
    panels = figure.subplots(1, len(sides), sharey=True, squeeze=False)[0]
    for axes, side in zip(panels, sides, strict=True):
        for row in rows:
            x, y = estimate_of(row, side.metric), estimate_of(row, layout.quality)
            if x is not None and y is not None:
                bars = {"xerr": _ends(x), "yerr": _ends(y)}
                axes.errorbar(x.value, y.value, **bars, fmt="o", capsize=3, label=label_of(row))
        xs, ys = _line(rows, side)
        axes.plot(xs, ys, "k--", lw=1)
        axes.set(xlabel=f"{side.axis}, log scale", xscale="log")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.4g}"))
        axes.xaxis.set_minor_formatter(StrMethodFormatter("{x:,.4g}"))
        axes.tick_params(axis="x", which="both", labelsize="small", rotation=30)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(layout.axis)
    panels[0].legend(fontsize="small")
    figure.suptitle("Quality against what was measured, 95 % intervals; dashed: Pareto front", fontsize="medium")
    return figure


def pareto_plot(rows: Sequence[Row]) -> plotly.graph_objects.Figure:
    """The same, to hover over."""
    sides, layout = measured_sides(rows), layout_of(rows)
    figure = make_subplots(rows=1, cols=len(sides), shared_yaxes=True)
    colours = plotly.colors.qualitative.Plotly
    for column, side in enumerate(sides, start=1):
        for number, row in enumerate(rows):
            x, y = estimate_of(row, side.metric), estimate_of(row, layout.quality)
            if x is None or y is None:
                continue
            (x_low,), (x_high,) = _ends(x)
            (y_low,), (y_high,) = _ends(y)
            shown = [f"{name}: {cell(row.measured.get(of), by)}" for name, (of, by) in layout.columns.items()]
            figure.add_scatter(
                x=[x.value],
                y=[y.value],
                name=label_of(row),
                legendgroup=label_of(row),
                showlegend=column == 1,
                mode="markers",
                marker={"color": colours[number % len(colours)]},
                error_x={"type": "data", "array": [x_high], "arrayminus": [x_low]},
                error_y={"type": "data", "array": [y_high], "arrayminus": [y_low]},
                hovertext="<br>".join([label_of(row), *shown]),
                row=1,
                col=column,
            )
        xs, ys = _line(rows, side)
        figure.add_scatter(
            x=xs,
            y=ys,
            name="Pareto front",
            legendgroup="front",
            showlegend=column == 1,
            mode="lines",
            line={"dash": "dash", "color": "black"},
            row=1,
            col=column,
        )
        figure.update_xaxes(title=side.axis, type="log", row=1, col=column)
    figure.update_yaxes(title=layout.axis, row=1, col=1)
    return figure


def pareto_html(rows: Sequence[Row]) -> str:
    """The plot as a piece of a page, its script with it, so that it opens without a network."""
    return str(plotly.io.to_html(pareto_plot(rows), include_plotlyjs=True, full_html=False))


def _line(rows: Sequence[Row], side: Side) -> tuple[list[float], list[float]]:
    """The front's points."""
    quality = layout_of(rows).quality
    pairs = [(estimate_of(row, side.metric), estimate_of(row, quality)) for row in pareto_front(rows, side)]
    return [x.value for x, _ in pairs if x is not None], [y.value for _, y in pairs if y is not None]


def _ends(estimate: Estimate) -> tuple[list[float], list[float]]:
    """How far the interval reaches to either side; an end that is not known is not drawn."""
    low, high = estimate.value - estimate.low, estimate.high - estimate.value
    return [low if low < float("inf") else 0.0], [high if high < float("inf") else 0.0]
