"""From which length on something pays is read off intervals, and said plainly."""

import pytest

from mlflow_llmops import names
from mlflow_llmops.measure.break_even import BreakEven, measure_break_even
from mlflow_llmops.measure.measurement import Estimate

SLOWER, UNPROVEN, FASTER = Estimate(0.6, 0.5, 0.7), Estimate(1.1, 0.9, 1.3), Estimate(2.0, 1.8, 2.2)


def of(*ratios: Estimate, takes: int = 512) -> BreakEven:
    lengths = (128, 256, 512, 1024)[: len(ratios)]
    return BreakEven(dict(zip(lengths, ratios, strict=True)), dict.fromkeys(lengths, 6), {}, takes)


@pytest.mark.parametrize(
    ("ratios", "length", "said"),
    [
        ((SLOWER, SLOWER, FASTER, FASTER), 512, "it pays from 512 tokens on (2.00 [1.80, 2.20] times as fast there)"),
        (
            (SLOWER, FASTER, UNPROVEN, FASTER),
            1024,
            "it pays from 1,024 tokens on (2.00 [1.80, 2.20] times as fast there), and never for this model, which "
            "takes 512",
        ),
        (
            (FASTER, FASTER, FASTER, UNPROVEN),
            None,
            "it pays at no length up to 1,024 tokens (1.10 [0.90, 1.30] times as fast there)",
        ),
        ((), None, "no length was measured; raise measure_seconds"),
    ],
)
def test_it_pays_from_where_every_longer_input_is_proven_faster(ratios, length, said):
    found = of(*ratios)
    assert found.length == length
    assert found.said() == said
    assert found.measurements().get(names.BREAK_EVEN) == length


def test_a_network_against_itself_pays_nowhere(tiny_model, tiny_texts):
    models = {"without": tiny_model, "with": tiny_model}
    found = measure_break_even(models, tiny_texts.test.texts, 64, 1.0, lengths=(16, 48, 512))
    assert found.length is None
    assert set(found.ratios) == {16, 48}
    assert found.left_out == {512: "a model takes 64 tokens at most"}
    for ratio in found.ratios.values():
        assert ratio.low <= 1.1 and ratio.high >= 0.9
