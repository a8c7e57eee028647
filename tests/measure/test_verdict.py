"""The verdict says what was gained, and that nothing was when nothing was."""

import pytest

from mlflow_llmops import names
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.measure.verdict import verdict

FASTER, SAME_SPEED, SLOWER = Estimate(2.0, 1.8, 2.2), Estimate(1.02, 0.95, 1.1), Estimate(0.5, 0.4, 0.6)
BETTER, AS_GOOD, WORSE = (
    Estimate(0.02, 0.01, 0.03),
    Estimate(-0.01, -0.03, 0.01),
    Estimate(-0.05, -0.08, -0.02),
)


def of(speed: Estimate, size: float, change: Estimate) -> str:
    return verdict({names.SPEEDUP: speed, names.SIZE_RATIO: size, names.QUALITY_CHANGE: change})


@pytest.mark.parametrize(
    ("speed", "size", "start"),
    [
        (FASTER, 0.25, "2.00 times as fast and 0.25 of the size; "),
        (FASTER, 1.0, "2.00 times as fast; "),
        (SAME_SPEED, 0.25, "0.25 of the size; "),
        (SAME_SPEED, 1.0, "did not help: neither faster nor smaller; "),
        (SAME_SPEED, 1.2, "did not help: neither faster nor smaller; "),
        (SLOWER, 1.0, "did not help: neither faster nor smaller; slower: 0.50 times the speed; "),
        (SLOWER, 0.25, "0.25 of the size; slower: 0.50 times the speed; "),
    ],
)
def test_gains_and_losses_in_speed_and_size(speed, size, start):
    assert of(speed, size, AS_GOOD).startswith(start)


@pytest.mark.parametrize(
    ("change", "end"),
    [
        (BETTER, "; quality rose by 0.0200 [0.0100, 0.0300]"),
        (AS_GOOD, "; no difference in quality was found"),
        (WORSE, "; quality fell by 0.0500 [0.0200, 0.0800]"),
    ],
)
def test_quality_is_judged_by_its_interval(change, end):
    assert of(FASTER, 0.25, change).endswith(end)


def test_a_gain_in_batches_does_not_hide_a_loss_for_one_text_alone():
    measured = {names.SPEEDUP: FASTER, names.SIZE_RATIO: 1.0, names.QUALITY_CHANGE: AS_GOOD}
    said = verdict({**measured, names.LATENCY_SPEEDUP: SLOWER})
    assert (
        said
        == "2.00 times as fast; slower: 0.50 times the speed for one text alone; no difference in quality was found"
    )
    assert "alone" not in verdict({**measured, names.LATENCY_SPEEDUP: SAME_SPEED})


@pytest.mark.parametrize(
    ("own", "end"), [(FASTER, "2.00 times)"), (SAME_SPEED, "1.02 times, which is no proven gain)")]
)
def test_what_the_runtime_gave_is_not_the_methods(own, end):
    measured = {names.SPEEDUP: FASTER, names.SIZE_RATIO: 0.25, names.QUALITY_CHANGE: AS_GOOD}
    said = verdict({**measured, names.RUNTIME_SPEEDUP: Estimate(1.5, 1.4, 1.6), names.SAME_RUNTIME_SPEEDUP: own})
    assert said.startswith(
        f"2.00 times as fast (the runtime alone: 1.50 times; the method in it: {end} and 0.25 of the size"
    )


def test_a_number_without_its_interval_is_refused():
    with pytest.raises(TypeError):
        verdict({names.SPEEDUP: 2.0, names.SIZE_RATIO: 0.5, names.QUALITY_CHANGE: AS_GOOD})


def test_a_causal_model_is_judged_by_its_writing_too():
    measured = {names.SPEEDUP: SAME_SPEED, names.SIZE_RATIO: 1.0, names.QUALITY_CHANGE: WORSE}
    assert verdict({**measured, names.GENERATION_SPEEDUP: FASTER}) == (
        "2.00 times as fast at writing; quality fell by 0.0500 [0.0200, 0.0800] nats per token"
    )
    assert verdict({**measured, names.GENERATION_SPEEDUP: SLOWER}).startswith(
        "did not help: neither faster nor smaller; slower: 0.50 times the speed at writing; "
    )


def test_a_score_that_moves_with_its_batch_is_named_and_rounding_is_not():
    measured = {names.SPEEDUP: FASTER, names.SIZE_RATIO: 0.25, names.QUALITY_CHANGE: AS_GOOD}
    assert verdict({**measured, names.BATCH_DRIFT: 0.00134, names.PADDING_DRIFT: 9e-5}).endswith(
        "no difference in quality was found; a text's score moves by up to 0.0013 with its batch-mates"
    )
    assert verdict({**measured, names.BATCH_DRIFT: 0.002, names.PADDING_DRIFT: 0.003}).endswith(
        "; a text's score moves by up to 0.002 with its batch-mates and by up to 0.003 with padding"
    )
    assert "moves" not in verdict({**measured, names.BATCH_DRIFT: 9e-5, names.PADDING_DRIFT: 0.0})


def test_a_batch_size_that_got_slower_is_named_with_its_place_and_others_are_counted():
    measured = {names.SPEEDUP: FASTER, names.SIZE_RATIO: 0.25, names.QUALITY_CHANGE: AS_GOOD}
    cells = dict.fromkeys(names.SPEEDUP_OF_CELL.values(), FASTER)
    assert "slower" not in verdict({**measured, **cells, "ratio/speedup_8x16": SAME_SPEED})
    cells["ratio/speedup_1x16"] = Estimate(0.8, 0.7, 0.9)
    assert verdict({**measured, **cells}) == (
        "2.00 times as fast and 0.25 of the size; slower at 1 text of 16 tokens: 0.80 times the speed; "
        "no difference in quality was found"
    )
    cells["ratio/speedup_8x64"], cells["ratio/speedup_32x256"] = SLOWER, Estimate(0.9, 0.8, 0.99)
    said = verdict({**measured, **cells})
    assert (
        "; slower at 8 texts of 64 tokens: 0.50 times the speed, and in 2 more of 9 batch sizes and lengths; " in said
    )


def test_what_the_machine_lacks_stands_at_the_end():
    measured = {names.SPEEDUP: SAME_SPEED, names.SIZE_RATIO: 0.25, names.QUALITY_CHANGE: AS_GOOD}
    assert verdict(measured, lacking="this CPU lacks it").endswith("; this CPU lacks it")


def test_zeros_and_finer_pieces_are_named_and_count_as_no_gain():
    measured = {names.SPEEDUP: SAME_SPEED, names.SIZE_RATIO: 1.0, names.QUALITY_CHANGE: AS_GOOD}
    assert verdict({**measured, names.SPARSITY: 0.5, names.COMPRESSED_RATIO: 0.6}) == (
        "did not help: neither faster nor smaller; no difference in quality was found; 50 % of its parameters are "
        "zero, and dense hardware gains neither size nor speed from that (only packed by zlib, as no runtime reads it, "
        "0.60 of the size)"
    )
    assert verdict({**measured, names.FINER_TEXTS: Estimate(0.15, 0.14, 0.16)}).endswith(
        "; 15.0 % of the texts in evaluation are cut into finer pieces than before"
    )
