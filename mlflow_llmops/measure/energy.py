"""What the processor's own counters say it spent (RAPL, through Linux's powercap)."""

from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
UNREADABLE = "energy: this machine has no counter (RAPL) that this user may read, so none was measured"


@dataclass(frozen=True)
class EnergyCounter:
    """The counters of the processor's packages, in microjoules, each with the value behind which it starts again."""

    zones: tuple[tuple[Path, int], ...]

    def read(self) -> tuple[int, ...]:
        """What each stands at."""
        return tuple(int((zone / "energy_uj").read_text()) for zone, _ in self.zones)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Spent between two readings, at most one start from 0 apart."""
        spans = zip(before, after, self.zones, strict=True)
        return sum((now - was) % (most + 1) for was, now, (_, most) in spans) / 1e6


def energy_counter(powercap: Path = POWERCAP) -> EnergyCounter | None:
    """Those of whole packages, which the counters of their parts are within; None where none can be read."""
    zones = []
    for zone in sorted(powercap.glob("intel-rapl:*")):  # AMD's too
        if zone.name.count(":") == 1:
            try:
                int((zone / "energy_uj").read_text())
                zones.append((zone, int((zone / "max_energy_range_uj").read_text())))
            except (OSError, ValueError):
                continue
    return EnergyCounter(tuple(zones)) if zones else None
