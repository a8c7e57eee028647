"""What a compression gained, in one plain sentence: also when that is nothing."""

from mlflow_llmops import names
from mlflow_llmops.measure.measurement import Estimate, Measurements


def verdict(measured: Measurements, compresses: bool = True) -> str:
    """From the ratios and the change in quality against the baseline, judged by their intervals.

    What is not meant to compress (`compresses=False`) is judged by its quality alone.
    """
    speed, size, change = measured[names.SPEEDUP], measured[names.SIZE_RATIO], measured[names.QUALITY_CHANGE]
    if not isinstance(speed, Estimate) or not isinstance(change, Estimate) or isinstance(size, Estimate):
        raise TypeError("speed-up and quality change are estimates, the size ratio is counted")
    faster, slower, smaller = speed.low > 1, speed.high < 1, size < 0.995
    gains = [f"{speed.value:.2f} times as fast"] if faster else []
    gains += [f"{size:.2f} of the size"] if smaller else []
    parts = [" and ".join(gains)] if gains else []
    if not gains and (compresses or change.low <= 0):
        parts.append("did not help: neither faster nor smaller" + ("" if compresses else " nor better"))
    if slower:
        parts.append(f"slower: {speed.value:.2f} times the speed")
    if change.high < 0:
        parts.append(f"quality fell by {-change.value:.4f} [{-change.high:.4f}, {-change.low:.4f}]")
    elif change.low > 0:
        parts.append(f"quality rose by {change.value:.4f} [{change.low:.4f}, {change.high:.4f}]")
    else:
        parts.append("no difference in quality was found")
    return "; ".join(parts)
