"""Speed by batch size and length, as a table, a picture and a file, with the token-budget engine beside it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from mlflow_llmops.measure.intervals import quantile_interval
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.measure.speed import Times, speedup
from mlflow_llmops.measure.speed_grid import Cell, SpeedGrid
from mlflow_llmops.tracking.report import cell as shown


@dataclass(frozen=True)
class GridReport:
    """The grid of a run's models; `times` are those of the engine. `control` is the baseline in the new runtime."""

    grid: SpeedGrid
    times: Mapping[str, Times]
    baseline: str
    candidate: str
    control: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(label for label in (self.baseline, self.control, self.candidate) if label)

    @property
    def pairs(self) -> dict[str, tuple[str, str]]:
        """What each ratio is of."""
        of = {"times as fast": (self.baseline, self.candidate)}
        if self.control:
            of |= {
                "the runtime alone": (self.baseline, self.control),
                "in the same runtime": (self.control, self.candidate),
            }
        return of

    @property
    def cells(self) -> list[Cell]:
        """Those that were measured, in the order of the table."""
        return sorted(self.grid.seconds)

    def engine(self, pair: tuple[str, str]) -> Estimate:
        """A ratio in the token-budget engine."""
        return speedup(*(self.times[label] for label in pair))

    def markdown(self) -> str:
        """Milliseconds of a call and paired ratios; then what was left out, and what the numbers are."""
        columns = [*(f"{label}, ms" for label in self.labels), *self.pairs, "rounds"]
        lines = [f"# Speed by batch size and length: {self.candidate}", "", f"| input | {' | '.join(columns)} |"]
        lines.append(f"|---|{'---:|' * len(columns)}")
        for cell in self.cells:
            calls = self.grid.seconds[cell]
            estimates = [quantile_interval(calls[label] * 1000) for label in self.labels]
            estimates += [self.grid.speedup(cell, *pair) for pair in self.pairs.values()]
            lines.append(_line(str(cell), estimates, len(calls[self.baseline])))
        estimates = [quantile_interval(self.times[label].batch * 1000) for label in self.labels]
        estimates += [self.engine(pair) for pair in self.pairs.values()]
        lines += [_line(self._engine_input(), estimates, len(self.times[self.baseline].batch)), ""]
        lines += [f"- left out: {cell}: {self.grid.left_out[cell]}" for cell in sorted(self.grid.left_out)]
        return "\n".join([*lines, *(f"- {note}" for note in NOTES), ""])

    def as_json(self) -> dict[str, Any]:
        """The same numbers, for programs."""
        cells = [
            {
                "texts": cell.texts,
                "tokens": cell.tokens,
                "rounds": len(self.grid.seconds[cell][self.baseline]),
                "ms": {
                    label: asdict(quantile_interval(seconds * 1000))
                    for label, seconds in self.grid.seconds[cell].items()
                },
                "ratios": {name: asdict(self.grid.speedup(cell, *pair)) for name, pair in self.pairs.items()},
            }
            for cell in self.cells
        ]
        engine = {
            "texts": self.times[self.baseline].texts,
            "tokens": self.times[self.baseline].tokens,
            "ms": {label: asdict(quantile_interval(self.times[label].batch * 1000)) for label in self.labels},
            "ratios": {name: asdict(self.engine(pair)) for name, pair in self.pairs.items()},
        }
        left_out = [{**asdict(cell), "reason": reason} for cell, reason in self.grid.left_out.items()]
        return {"models": self.labels, "cells": cells, "engine": engine, "left_out": left_out, "notes": NOTES}

    def png(self) -> Figure:
        """Ratios against length, a line for each batch size; with a control also those in the same runtime."""
        drawn = [name for name in self.pairs if name != "the runtime alone"]
        figure = Figure(figsize=(1 + 5 * len(drawn), 4.5), layout="constrained")
        axes = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
        for name, ax in zip(drawn, axes, strict=True):
            self._lines(ax, *self.pairs[name])
            ax.set_title(f"{name} ({self.pairs[name][1]}\nagainst {self.pairs[name][0]})", fontsize="medium")
        axes[0].set_ylabel("times as fast, 95 % interval")
        axes[0].legend(fontsize="small")
        return figure

    def _lines(self, ax: Axes, baseline: str, candidate: str) -> None:
        for number, texts in enumerate(sorted({cell.texts for cell in self.cells})):
            cells = [cell for cell in self.cells if cell.texts == texts]
            ratios = [self.grid.speedup(cell, baseline, candidate) for cell in cells]
            ax.errorbar(
                [cell.tokens * (1 + 0.04 * number) for cell in cells],  # beside each other, not on each other
                [ratio.value for ratio in ratios],
                yerr=[[r.value - r.low for r in ratios], [r.high - r.value for r in ratios]],
                marker="o",
                capsize=3,
                label=f"{texts} text{'s' if texts > 1 else ''} at once",
            )
        ax.axhline(1, color="black", lw=1)
        ax.axhline(self.engine((baseline, candidate)).value, color="gray", ls="--", lw=1, label="token-budget engine")
        ax.set(xlabel="tokens a text", xscale="log")
        ax.set_xticks(sorted({cell.tokens for cell in self.cells}))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.minorticks_off()
        ax.grid(alpha=0.3)

    def _engine_input(self) -> str:
        times = self.times[self.baseline]
        return f"token-budget engine: {times.texts} texts of {times.tokens / times.texts:.0f} tokens on average"


NOTES = (
    "A cell is the network alone, on token ids repeated or cut to exactly that length: no tokenizer, no padding. All "
    "models take turns, and a ratio is the median of the turns' ratios.",
    "The engine's row is what a user gets for a table: from strings to scores, sorted by length, in its own batches.",
    "± is the wider side of a 95 % interval. Each holds by itself, so among nine cells one may miss by chance.",
)


def _line(label: str, estimates: list[Estimate], rounds: int) -> str:
    return f"| {label} | {' | '.join(shown(estimate, 1) for estimate in estimates)} | {rounds} |"
