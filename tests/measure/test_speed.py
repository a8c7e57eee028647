"""Times are paired, interleaved, and a model against itself comes out at 1."""

import time

import numpy as np
import pytest

from mlflow_llmops import names
from mlflow_llmops.measure.speed import FEWEST_ROUNDS, SINGLES, WARM_UPS, Times, _sample, measure_speed, speedup

TEXTS = [f"text {i}" for i in range(64)]


def work(loops: int):
    """A score that keeps the processor busy for `loops` steps a text."""

    def score(texts) -> int:
        return sum(sum(range(loops)) for _ in texts)

    return score


def count_tokens(texts) -> int:
    return sum(len(text.split()) for text in texts)


def measured_ratio(baseline_loops: int, candidate_loops: int):
    models = {"baseline": work(baseline_loops), "candidate": work(candidate_loops)}
    times = measure_speed(models, TEXTS, count_tokens, seconds=0.5)
    return speedup(times["baseline"], times["candidate"])


def test_a_model_against_itself_covers_one():
    ratios = [measured_ratio(20_000, 20_000) for _ in range(5)]
    # each misses one time in twenty, so three misses in five are one in a thousand
    assert sum(ratio.low <= 1 <= ratio.high for ratio in ratios) >= 3
    assert np.median([ratio.value for ratio in ratios]) == pytest.approx(1, abs=0.15)


def test_twice_the_work_is_found_to_be_slower_and_half_to_be_faster():
    slower, faster = measured_ratio(20_000, 40_000), measured_ratio(40_000, 20_000)
    assert slower.high < 1 < faster.low
    assert slower.value == pytest.approx(1 / 2, rel=0.3)
    assert faster.value == pytest.approx(2, rel=0.3)


def test_models_take_turns_on_the_same_texts_after_a_warm_up():
    calls: list[tuple[str, tuple[str, ...]]] = []

    def noted(label: str):
        def score(texts) -> None:
            calls.append((label, tuple(texts)))
            time.sleep(0.0001)

        return score

    times = measure_speed({"a": noted("a"), "b": noted("b")}, TEXTS, count_tokens, seconds=0.0)
    rounds = len(times["a"].batch)
    assert rounds == len(times["b"].batch) == FEWEST_ROUNDS
    assert len(times["a"].single) == len(times["b"].single) == FEWEST_ROUNDS * SINGLES
    a_round = 2 * (1 + 1 + SINGLES)
    timed = calls[-FEWEST_ROUNDS * a_round :]
    before = [label for label, _ in calls[: -len(timed)]]
    assert min(before.count("a"), before.count("b")) >= 2 * WARM_UPS
    for number in range(FEWEST_ROUNDS):
        of_round = timed[number * a_round : (number + 1) * a_round]
        assert sorted(label for label, _ in of_round[:2]) == ["a", "b"]
        first, second = of_round[2][0], of_round[-1][0]
        assert {first, second} == {"a", "b"}
        assert [label for label, _ in of_round[2:]] == [first] * (1 + SINGLES) + [second] * (1 + SINGLES)
        assert of_round[0][1] == of_round[1][1], "both score the sample"
        ones = [texts for _, texts in of_round[2:]]
        assert all(len(texts) == 1 for texts in ones)
        assert ones[: 1 + SINGLES] == ones[1 + SINGLES :]
        assert ones[0] == ones[1], "one call before that is not timed"


def test_time_goes_on_until_the_seconds_are_over():
    start = time.perf_counter()
    times = measure_speed({"a": work(100)}, TEXTS, count_tokens, seconds=0.4, narrow=0)
    assert time.perf_counter() - start >= 0.4
    assert len(times["a"].batch) > FEWEST_ROUNDS


def test_a_slow_model_gets_a_smaller_sample_spread_over_the_texts():
    seen: list[tuple[str, ...]] = []

    def slow(texts) -> None:
        seen.append(tuple(texts))
        time.sleep(0.0005 * len(texts))

    many = [f"text {i}" for i in range(2000)]
    times = measure_speed({"a": slow}, many, count_tokens, seconds=0.0)["a"]
    sample = max((texts for texts in seen[2:]), key=len)
    assert 32 <= times.texts == len(sample) < 1000
    assert times.tokens == 2 * times.texts
    assert len(set(sample)) == len(sample)
    assert many.index(sample[-1]) > 1000


def test_more_time_a_round_is_more_texts_and_none_is_below_what_an_interval_needs():
    def slow(texts) -> None:
        time.sleep(0.001 * len(texts))

    many = [f"text {i}" for i in range(2000)]
    short, long, none = (len(_sample({"a": slow}, many, seconds)) for seconds in (0.1, 0.6, 0.0))
    assert none == 32 < short < long / 3


def test_drift_that_meets_both_alike_leaves_the_ratio():
    drift = np.linspace(1, 10, 15)
    ratio = speedup(Times(2 * drift, drift, 10, 10), Times(drift, drift, 10, 10))
    assert (ratio.value, ratio.low, ratio.high) == (2, 2, 2)


def test_one_interrupted_round_leaves_the_ratio():
    random = np.random.default_rng(0)
    baseline, candidate = 3 + 0.01 * random.random(15), 1 + 0.01 * random.random(15)
    calm = speedup(Times(baseline, baseline, 1, 1), Times(candidate, candidate, 1, 1))
    candidate[4] = 50
    jolted = speedup(Times(baseline, baseline, 1, 1), Times(candidate, candidate, 1, 1))
    assert jolted.value == pytest.approx(calm.value, rel=0.01)
    assert jolted.low > 2.9


def test_rates_and_latencies_have_their_units():
    seconds = np.full(9, 0.5)
    single = np.concatenate([np.full(90, 0.002), np.full(10, 0.008)])
    measured = Times(seconds, single, texts=100, tokens=700).measurements()
    assert measured[names.TEXTS_PER_S].value == 200
    assert measured[names.TOKENS_PER_S].value == 1400
    assert measured[names.LATENCY_P50].value == 2
    assert measured[names.LATENCY_P95].value == pytest.approx(8)
