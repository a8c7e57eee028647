"""Cells hold exactly their texts and tokens, models take turns in each, and what there is no time for is said."""

import math
import re
import time
from dataclasses import replace

import numpy as np
import pytest

from mlflow_llmops import names
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.measure.speed import FEWEST_ROUNDS, measure_speed
from mlflow_llmops.measure.speed_grid import CELLS, MOST_ROUNDS, Cell, measure_speed_grid
from mlflow_llmops.tracking.speed_grid import GridReport

SMALL = [Cell(texts, tokens) for texts in (1, 8, 32) for tokens in (16, 64)]


def running(model, run):
    """`model` with another network."""
    other = replace(model)
    vars(other)["run"] = run
    return other


def work(loops: int):
    """A network that keeps the processor busy for `loops` steps a token and some more a call."""

    def run(inputs) -> np.ndarray:
        for _ in range(inputs["input_ids"].size + 16):
            sum(range(loops))
        return np.zeros((len(inputs["input_ids"]), 3), np.float32)

    return run


def sleep(seconds_a_token: float):
    def run(inputs) -> None:
        time.sleep(inputs["input_ids"].size * seconds_a_token)

    return run


def test_a_model_against_itself_covers_one_in_nearly_every_cell(tiny_model, tiny_texts):
    grid = measure_speed_grid({"a": tiny_model, "b": tiny_model}, tiny_texts.test.texts, 4.0, SMALL)
    ratios = [grid.speedup(cell, "a", "b") for cell in SMALL]
    # each misses one time in twenty or less, so three misses in six are two in a thousand
    assert sum(ratio.low <= 1 <= ratio.high for ratio in ratios) >= 4
    assert np.median([ratio.value for ratio in ratios]) == pytest.approx(1, abs=0.1)


def test_twice_the_work_is_half_the_speed_in_every_cell(tiny_model, tiny_texts):
    models = {"a": running(tiny_model, work(100)), "b": running(tiny_model, work(200))}
    grid = measure_speed_grid(models, tiny_texts.test.texts, 2.0, SMALL)
    assert set(grid.seconds) == set(SMALL) and not grid.left_out
    ratios = [grid.speedup(cell, "a", "b") for cell in SMALL]
    assert sum(ratio.high < 1 for ratio in ratios) >= 5, "a busy machine may hide one"
    assert np.median([ratio.value for ratio in ratios]) == pytest.approx(0.5, rel=0.3)
    found = grid.speedups("a", "b")
    assert found["ratio/speedup_8x64"] == grid.speedup(Cell(8, 64), "a", "b")
    assert set(found) <= set(names.SPEEDUP_OF_CELL.values())


def test_every_model_gets_exactly_so_many_tokens_of_real_texts_and_they_take_turns(tiny_model, tiny_texts):
    seen = []

    def noting(label):
        def run(inputs):
            seen.append((label, inputs))
            time.sleep(1e-4)

        return run

    models = {label: running(tiny_model, noting(label)) for label in "ab"}
    cells = [Cell(1, 16), Cell(8, 64)]
    grid = measure_speed_grid(models, tiny_texts.test.texts, 0.0, cells[:1])
    grid = measure_speed_grid(models, tiny_texts.test.texts, 5.0, cells)
    assert {inputs["input_ids"].shape for _, inputs in seen} == {(1, 16), (8, 64)}
    assert all(inputs["attention_mask"].all() for _, inputs in seen)
    widest = next(inputs["input_ids"] for _, inputs in seen if inputs["input_ids"].shape == (8, 64))
    known = [tuple(row) for row in scorer_of(tiny_model).encode(tiny_texts.test.texts)]
    for row in widest:
        length = next(n for n in range(1, 65) if tuple(row[:n]) in known)
        assert np.array_equal(row, np.resize(row[:length], 64)), "a text's tokens, again and again"
    assert len({tuple(row) for row in widest}) == 8
    for cell in cells:
        assert FEWEST_ROUNDS <= len(grid.seconds[cell]["a"]) == len(grid.seconds[cell]["b"]) <= MOST_ROUNDS
        estimate = grid.speedup(cell, "a", "b")
        assert math.isfinite(estimate.low) and math.isfinite(estimate.high)
    timed = [label for label, inputs in seen if inputs["input_ids"].shape == (8, 64)]
    rounds = len(grid.seconds[cells[1]]["a"])
    assert re.fullmatch("(aabb|bbaa)*", "".join(timed[-4 * rounds :]))


def test_a_cell_that_would_take_too_long_is_left_out_and_the_time_holds(tiny_model, tiny_texts):
    wide = replace(tiny_model, max_length=512)
    models = {label: running(wide, sleep(2e-5)) for label in "ab"}
    start = time.perf_counter()
    grid = measure_speed_grid(models, tiny_texts.test.texts, 1.5)
    assert time.perf_counter() - start < 3
    assert Cell(1, 16) in grid.seconds and Cell(8, 16) in grid.seconds
    assert Cell(32, 256) in grid.left_out
    assert set(grid.seconds) | set(grid.left_out) == set(CELLS)
    assert max(cell.size for cell in grid.seconds) <= min(cell.size for cell in grid.left_out)
    assert re.fullmatch(r"7 rounds would take about \d+\.\d s; raise measure_seconds", grid.left_out[Cell(32, 256)])


def test_big_cells_get_the_rounds_of_an_interval_beyond_the_seconds_and_no_more(tiny_model, tiny_texts):
    wide = replace(tiny_model, max_length=512)
    grid = measure_speed_grid({"a": running(wide, sleep(2e-5))}, tiny_texts.test.texts, 0.5, most=30.0)
    assert set(grid.seconds) == set(CELLS) and not grid.left_out
    assert {len(each["a"]) for each in grid.seconds.values()} == {FEWEST_ROUNDS}


def test_the_smallest_cell_is_measured_however_little_time_there_is(tiny_model, tiny_texts):
    grid = measure_speed_grid({"a": tiny_model}, tiny_texts.test.texts, 1e-6)
    assert list(grid.seconds) == [Cell(1, 16)]


def test_lengths_that_a_model_does_not_take_are_left_out(tiny_model, tiny_texts):
    models = {"a": replace(tiny_model, max_length=64), "b": tiny_model}
    grid = measure_speed_grid(models, tiny_texts.test.texts, 20.0)
    assert {cell.tokens for cell in grid.seconds} == {16, 64}
    assert {cell: grid.left_out[cell] for cell in CELLS if cell.tokens == 256} == {
        Cell(texts, 256): "a model takes 64 tokens at most" for texts in (1, 8, 32)
    }


def test_the_table_has_every_cell_the_engine_and_what_was_left_out(tiny_model, tiny_texts):
    models = {"baseline": tiny_model, "baseline in onnx, fp32": tiny_model, "quantize.x": tiny_model}
    cells = [Cell(1, 16), Cell(8, 64), Cell(8, 1024)]
    grid = measure_speed_grid(models, tiny_texts.test.texts, 1.0, cells)
    scorers = {label: scorer_of(model).logits for label, model in models.items()}
    times = measure_speed(scorers, tiny_texts.test.texts, lambda texts: 10 * len(texts), 0.1, singles=1)
    report = GridReport(grid, times, "baseline", "quantize.x", "baseline in onnx, fp32")
    lines = report.markdown().splitlines()
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    engine = f"token-budget engine: {times['baseline'].texts} texts of 10 tokens on average"
    assert rows == ["input", "1 text of 16 tokens", "8 texts of 64 tokens", engine]
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert any("no tokenizer" in line for line in lines)
    assert f"- left out: 8 texts of 1024 tokens: a model takes {tiny_model.max_length} tokens at most" in lines
    stored = report.as_json()
    assert [(each["texts"], each["tokens"]) for each in stored["cells"]] == [(1, 16), (8, 64)]
    assert set(stored["cells"][0]["ratios"]) == {"times as fast", "the runtime alone", "in the same runtime"}
    assert [ax.get_title().split(" (")[0] for ax in report.png().axes] == ["times as fast", "in the same runtime"]
    alone = GridReport(grid, times, "baseline", "quantize.x")
    assert "runtime" not in alone.markdown() and len(alone.png().axes) == 1
