"""What a compression gained, in one plain sentence: also when that is nothing."""

from mlflow_llmops import names
from mlflow_llmops.measure.measurement import Estimate, Measurements

SEEN_DRIFT = 1e-4
"""Of a probability, between a text alone and in a batch; rounding in fp32 is a hundred times less."""
LABELLING = {"": names.SPEEDUP}
WRITING = {" at scoring": names.SPEEDUP, " at writing": names.GENERATION_SPEEDUP}
"""Speeds that count as a gain, and what the verdict calls them."""
ONE_ALONE = {
    " for one text alone": names.LATENCY_SPEEDUP,
    " at reading one prompt": names.PREFILL_SPEEDUP,
    " at writing one text alone": names.NEXT_TOKEN_SPEEDUP,
}
"""Speeds that are told where they fell."""


def verdict(measured: Measurements, compresses: bool = True, lacking: str = "") -> str:
    """From the ratios and the change in quality against the baseline, judged by their intervals.

    What is not meant to compress (`compresses=False`) is judged by its quality alone. `lacking` says what the machine
    would have needed to be fast.
    """
    speed, size, change = measured[names.SPEEDUP], measured[names.SIZE_RATIO], measured[names.QUALITY_CHANGE]
    if not isinstance(speed, Estimate) or not isinstance(change, Estimate) or isinstance(size, Estimate):
        raise TypeError("speed-up and quality change are estimates, the size ratio is counted")
    writes = names.GENERATION_SPEEDUP in measured
    counted, unit = (WRITING, " nats per token") if writes else (LABELLING, "")
    speeds = {at: each for at, name in counted.items() if isinstance(each := measured.get(name), Estimate)}
    gains = [
        f"{each.value:.2f} times as fast{at}{_of_the_runtime(measured, counted[at])}"
        for at, each in speeds.items()
        if each.low > 1
    ]
    gains += [f"{size:.2f} of the size"] if size < 0.995 else []
    parts = [" and ".join(gains)] if gains else []
    if not gains and (compresses or change.low <= 0):
        parts.append("did not help: neither faster nor smaller" + ("" if compresses else " nor better"))
    for at, name in ONE_ALONE.items():
        if isinstance(each := measured.get(name), Estimate):
            speeds[at] = each
    parts += [f"slower: {each.value:.2f} times the speed{at}" for at, each in speeds.items() if each.high < 1]
    parts += _in_cells(measured)
    if change.high < 0:
        parts.append(f"quality fell by {-change.value:.4f} [{-change.high:.4f}, {-change.low:.4f}]{unit}")
    elif change.low > 0:
        parts.append(f"quality rose by {change.value:.4f} [{change.low:.4f}, {change.high:.4f}]{unit}")
    else:
        parts.append("no difference in quality was found")
    parts += _of_the_zeros(measured)
    parts += _of_the_pieces(measured)
    parts += _of_the_batch(measured)
    parts += [lacking] if lacking else []
    return "; ".join(parts)


def _in_cells(measured: Measurements) -> list[str]:
    """The batch size and length at which it got slower: the worst, and how many more."""
    cells = {cell: measured.get(name) for cell, name in names.SPEEDUP_OF_CELL.items()}
    found = {cell: each for cell, each in cells.items() if isinstance(each, Estimate)}
    slower = {cell: each.value for cell, each in found.items() if each.high < 1}
    if not slower:
        return []
    texts, tokens = worst = min(slower, key=lambda cell: slower[cell])
    more = f", and in {len(slower) - 1} more of {len(found)} batch sizes and lengths" if len(slower) > 1 else ""
    at = f"{texts} text{'s' if texts > 1 else ''} of {tokens} tokens"
    return [f"slower at {at}: {slower[worst]:.2f} times the speed{more}"]


def _of_the_zeros(measured: Measurements) -> list[str]:
    """Zeros in dense tensors are no gain, whatever their number."""
    sparsity, packed = measured.get(names.SPARSITY), measured.get(names.COMPRESSED_RATIO)
    if not isinstance(sparsity, float) or not isinstance(packed, float):
        return []
    return [
        f"{100 * sparsity:.0f} % of its parameters are zero, and dense hardware gains neither size nor speed from that "
        f"(only packed by zlib, as no runtime reads it, {packed:.2f} of the size)"
    ]


def _of_the_pieces(measured: Measurements) -> list[str]:
    """Texts that a smaller vocabulary cuts otherwise than before."""
    finer = measured.get(names.FINER_TEXTS)
    if not isinstance(finer, Estimate):
        return []
    return [f"{100 * finer.value:.1f} % of the texts in evaluation are cut into finer pieces than before"]


def _of_the_batch(measured: Measurements) -> list[str]:
    """A score that is another one in another batch, where a user would see it."""
    said = []
    for what, name in (("its batch-mates", names.BATCH_DRIFT), ("padding", names.PADDING_DRIFT)):
        drift = measured.get(name)
        if isinstance(drift, float) and drift > SEEN_DRIFT:
            said.append(f"by up to {drift:.2g} with {what}")
    return [f"a text's score moves {' and '.join(said)}"] if said else []


def _of_the_runtime(measured: Measurements, ratio: str) -> str:
    """What a change of runtime alone gave is no gain of the method's."""
    runtime, own = measured.get(ratio + names.OF_RUNTIME), measured.get(ratio + names.IN_SAME_RUNTIME)
    if not isinstance(runtime, Estimate) or not isinstance(own, Estimate):
        return ""
    said = f" (the runtime alone: {runtime.value:.2f} times; the method in it: {own.value:.2f} times"
    if own.high < 1:
        return f"{said}, which is slower)"
    return said + (")" if own.low > 1 else ", which is no proven gain)")
