"""From which length of an input on one network is faster than another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow_llmops import names
from mlflow_llmops.measure.measurement import Estimate, Measurements
from mlflow_llmops.measure.speed_grid import Cell, measure_speed_grid
from mlflow_llmops.models.text_model import TextModel

LENGTHS = tuple(names.SPEEDUP_AT_LENGTH)


@dataclass(frozen=True)
class BreakEven:
    """How many times as fast the second network is, by tokens of one text, and why a length has no ratio."""

    ratios: Mapping[int, Estimate]
    rounds: Mapping[int, int]
    left_out: Mapping[int, str]
    takes: int
    """Tokens that the model takes at most."""

    @property
    def length(self) -> int | None:
        """The shortest measured length from which on each is proven faster; None where the longest is not."""
        found = None
        for tokens in sorted(self.ratios, reverse=True):
            if self.ratios[tokens].low <= 1:
                break
            found = tokens
        return found

    def measurements(self) -> Measurements:
        """Ratios under their names, and the length where there is one."""
        measured: Measurements = {names.SPEEDUP_AT_LENGTH[tokens]: ratio for tokens, ratio in self.ratios.items()}
        if self.length is not None:
            measured[names.BREAK_EVEN] = float(self.length)
        return measured

    def said(self) -> str:
        """One sentence, plain where it never pays."""
        if not self.ratios:
            return "no length was measured; raise measure_seconds"
        if self.length is None:
            longest = max(self.ratios)
            said = f"it pays at no length up to {longest:,} tokens ({_shown(self.ratios[longest])} there)"
            return f"{said}; {len(self.left_out)} longer ones were left out" if self.left_out else said
        pays = f"it pays from {self.length:,} tokens on ({_shown(self.ratios[self.length])} there)"
        if self.length <= self.takes:
            return pays
        return f"{pays}, and never for this model, which takes {self.takes:,}"


def measure_break_even(
    models: Mapping[str, TextModel], texts: Sequence[str], takes: int, seconds: float, lengths: Sequence[int] = LENGTHS
) -> BreakEven:
    """Time two networks, without and with what is to pay, on one text of each length, in turn."""
    without, with_it = models
    cells = [Cell(1, tokens) for tokens in lengths]
    grid = measure_speed_grid(models, texts, seconds, cells)
    return BreakEven(
        {cell.tokens: grid.speedup(cell, without, with_it) for cell in sorted(grid.seconds)},
        {cell.tokens: len(grid.seconds[cell][without]) for cell in grid.seconds},
        {cell.tokens: reason for cell, reason in grid.left_out.items()},
        takes,
    )


def _shown(ratio: Estimate) -> str:
    return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] times as fast"
