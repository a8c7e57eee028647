"""The deepest cut that holds a bound is found within the time; the run has every trial, the curve and the control."""

from copy import deepcopy

import mlflow
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError, GateFailed
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.methods import table
from mlflow_llmops.methods.prune.neurons import Neurons
from mlflow_llmops.steps._fraction_search import Cut, deepest
from mlflow_llmops.steps._part import check_processes
from mlflow_llmops.steps.compress import compress
from mlflow_llmops.tracking.fraction_curve import Point, curve_png


def searched(drops: list[float], bound: float, start: float = 0.5, seconds: float = 1e9):
    """Over as many amounts as `drops` has numbers; each trial takes a second and its model is its amount."""
    now = [0.0]
    amounts = [(i + 1) / (len(drops) + 1) for i in range(len(drops))]

    def attempt(fraction: float) -> Cut:
        now[0] += 1
        return Cut(fraction, drops[amounts.index(fraction)], 1.0, None, fraction)

    return deepest(attempt, amounts, start, bound, seconds, lambda: now[0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0, 1), st.floats(0.01, 0.99))
def test_where_deeper_cuts_lose_more_the_deepest_is_found_in_few_trials(drops, bound, start):
    drops = sorted(drops)
    best, trials = searched(drops, bound, start)
    holding = [trial for trial in trials if trial.drop <= bound]
    count = sum(drop <= bound for drop in drops)
    if count:
        assert best.fraction == pytest.approx(count / (len(drops) + 1))
        assert best.fraction == max(trial.fraction for trial in holding)
    else:
        assert best.drop == drops[0]
    assert len(trials) <= len(drops).bit_length() + 1
    assert len({trial.fraction for trial in trials}) == len(trials)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0, 1), st.floats(0, 6))
def test_whatever_the_order_the_best_trial_is_kept_and_no_other_model(drops, bound, seconds):
    best, trials = searched(drops, bound, seconds=seconds)
    held = [trial for trial in trials if trial.drop <= bound]
    if held:
        assert best.fraction == max(trial.fraction for trial in held)
    else:
        assert best.drop == min(trial.drop for trial in trials)
    assert best.model == best.fraction
    assert not any(trial.model for trial in trials)
    assert len(trials) <= max(1, seconds + 1)


@pytest.mark.slow
def test_a_bound_and_a_control_leave_their_evidence_in_the_run(store, tiny_folder, tiny_data):
    options = {"max_quality_drop": 0.05, "control": "from_scratch", "batch_size": 16, "importance": "taylor"}
    done = compress(
        "prune", "heads", str(tiny_folder), str(tiny_data), measure_seconds=1, speed_grid=False, options=options
    )
    run = mlflow.get_run(done.run_id)
    shown = mlflow.artifacts.load_dict(f"runs:/{done.run_id}/{names.FRACTION_SEARCH}")
    assert [trial["fraction"] for trial in shown["trials"]] == [0.5], "two heads leave one cut to try"
    assert shown["trials"][0]["speedup"]["low"] > 0
    kept = {file.path for file in MlflowClient().list_artifacts(done.run_id)}
    assert {names.FRACTION_CURVE_PNG, names.KEPT} <= kept
    metrics, tags = run.data.metrics, run.data.tags
    assert metrics[names.FRACTION] == 0.5
    assert metrics[names.DROP_ON_DEV] == pytest.approx(shown["trials"][0]["drop"])
    prefix = names.FROM_SCRATCH_PREFIX
    assert metrics[prefix + names.QUALITY_CHANGE + names.LOW] <= metrics[prefix + names.QUALITY_CHANGE]
    assert 0 < metrics[prefix + names.ACCURACY] < 1
    assert "the bound of 0.05 on dev is held" in tags[names.VERDICT]
    assert "the same shape from random weights, trained for the same budget" in tags[names.VERDICT]
    assert "1 of 2 heads go from each block, and 16 of 32 hidden channels with them" in tags[names.NOTES]
    assert any(name.startswith("cut_0.5/recover/") for name in metrics)
    assert any(name.startswith("from_scratch/") and name.endswith("loss") for name in metrics)
    assert len([key for key in tags if key.startswith(names.KEPT_PREFIX + "importance-heads-taylor")]) == 1


def test_a_search_and_a_control_are_for_one_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for options in ({"max_quality_drop": 0.1}, {"control": "from_scratch"}):
        with pytest.raises(ConfigError, match=rf"^{next(iter(options))}: models are measured between trainings"):
            check_processes("prune.neurons", Neurons(**options))
    check_processes("prune.neurons", Neurons())


def test_the_curve_has_a_line_for_each_way_and_no_speed_where_none_was_measured(tmp_path):
    points = [
        Point(0.25, Estimate(0.9, 0.88, 0.92), Estimate(1.2, 1.1, 1.3), "taylor"),
        Point(0.5, 0.8, Estimate(1.6, 1.5, 1.7), "taylor"),
        Point(0.5, 0.7, None, "random"),
    ]
    figure = curve_png(points, "accuracy on dev", before=0.95, bound=0.02)
    upper, lower = figure.axes
    assert {"taylor", "random", "nothing cut", "bound, 0.02 below"} == set(upper.get_legend_handles_labels()[1])
    assert len(lower.containers) == 2
    figure.savefig(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000


def test_a_bound_that_is_missed_registers_nothing(store, tiny_folder, tiny_data):
    options = {"fraction": 0.75, "max_quality_drop": 0.001, "control_seconds": 0.01, "recovery": "none"}
    with pytest.raises(GateFailed, match=r"prune.width is not registered as mine: it lost 0\.\d+ on dev") as refused:
        compress(
            "prune",
            "width",
            str(tiny_folder),
            str(tiny_data),
            measure_seconds=0.2,
            register_as="mine",
            options={**options, "importance": "random"},
        )
    assert refused.value.exit_code == 3 and refused.value.shown
    assert mlflow.MlflowClient().search_registered_models() == []
    [run] = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.info.status == "FAILED" and "NOT held" in run.data.tags[names.VERDICT]


@pytest.mark.parametrize("method", ["prune.heads", "prune.layers"])
def test_a_number_and_a_search_for_the_depth_exclude_each_other(method):
    with pytest.raises(ConfigError, match="count=1: with max_quality_drop the deepest cut is searched for"):
        table.build(method, {"count": 1, "max_quality_drop": 0.01})


def test_advice_goes_by_the_share_that_is_really_cut(tiny_model):
    one, half = (table.build("prune.layers", {"fraction": fraction}) for fraction in (0.5, 0.9))
    for method in (one, half):  # of two blocks one goes either way
        assert method.notes(tiny_model)[0] == "1 of 2 blocks go"
        assert method.notes(tiny_model)[1].startswith("0.5 is cut at once")


@pytest.mark.slow
def test_weights_in_bfloat16_are_worked_on_and_measured_in_fp32(store, tiny_model, tiny_data, tmp_path):
    stored = tiny_model.with_net(deepcopy(tiny_model.network).to(torch.bfloat16))
    stored.save(tmp_path / "bf16")
    for verb, method in (("prune", "neurons"), ("export", "onnx"), ("factorize", "svd")):
        options = {} if verb == "export" else {"recovery": "none"}
        done = compress(verb, method, str(tmp_path / "bf16"), str(tiny_data), measure_seconds=0.2, options=options)
        run = mlflow.get_run(done.run_id)
        assert (
            "the weights are stored in bfloat16; the method and its baseline have them in fp32"
            in (run.data.tags[names.NOTES])
        )
        disk = run.data.metrics[names.BASELINE_PREFIX + names.DISK]
        assert disk > 4 * tiny_model.network.num_parameters() / 2**20, "the baseline is the one in fp32"
