"""A bound on quality is held with the fewest layers left behind, within the time, and the run says what it took."""

import json
from copy import deepcopy

import mlflow
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llmops import names
from mlflow_llmops.methods.quantize._sensitivity import sensitivities
from mlflow_llmops.steps._accuracy_control import Trial, fewest
from mlflow_llmops.steps.compress import compress

HURT = "bert.pooler.dense"


def searched(drops: list[float], bound: float, seconds: float = 1e9):
    """Over a number of layers one less than `drops` has numbers; each trial takes a second."""
    now = [0.0]

    def attempt(count: int) -> Trial:
        now[0] += 1
        return Trial(count, drops[count], 1.0, None)

    return fewest(attempt, len(drops) - 1, bound, seconds, lambda: now[0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0, 1))
def test_where_more_layers_lose_less_the_fewest_are_found_in_few_trials(drops, bound):
    drops = sorted(drops, reverse=True)
    best, trials = searched(drops, bound)
    holding = [count for count, drop in enumerate(drops) if drop <= bound]
    assert best.layers == holding[0] if holding else best.drop == min(trial.drop for trial in trials)
    assert len(trials) <= 2 * len(drops).bit_length() + 2
    assert len({trial.layers for trial in trials}) == len(trials)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0, 1), st.floats(0, 6))
def test_whatever_the_order_the_best_trial_is_kept_and_the_time_is_too(drops, bound, seconds):
    best, trials = searched(drops, bound, seconds)
    held = [trial for trial in trials if trial.drop <= bound]
    assert best.layers == min(trial.layers for trial in held) if held else best.drop == min(t.drop for t in trials)
    assert len(trials) <= max(1, seconds + 1)


@pytest.fixture(scope="module")
def hurt_folder(hurt_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hurt") / "model"
    hurt_model.save(folder)
    return folder


def quantized(folder, data, **options):
    return compress(
        verb="quantize",
        method="int8_static",
        model=str(folder),
        data=str(data),
        measure_seconds=1,
        options={"engine": "onnx", "ranges": "minmax", "calibration_texts": 32, **options},
    )


@pytest.mark.slow
def test_a_bound_leaves_the_layer_that_hurts_and_says_what_it_cost(store, hurt_folder, tiny_data):
    done = quantized(hurt_folder, tiny_data, max_quality_drop=0.02)
    run = mlflow.get_run(done.run_id)
    shown = mlflow.artifacts.load_dict(f"runs:/{done.run_id}/{names.CONTROL}")
    assert shown["trials"][0]["layers"] == 0
    assert shown["trials"][0]["drop"] > 0.02, "without a bound it must hurt"
    assert shown["layers_left"] == [HURT]
    assert run.data.metrics[names.DROP_ON_DEV] <= 0.02
    assert run.data.metrics[names.LAYERS_LEFT] == 1
    assert run.data.metrics[names.SPEED_OF_ALL] > 0
    said = run.data.tags[names.VERDICT]
    assert "the bound of 0.02 on dev is held" in said
    assert "1 of 14 layers stayed at full precision, which makes it" in said


@pytest.mark.slow
def test_sensitivities_are_measured_once_and_found_again(store, hurt_folder, tiny_data):
    first = quantized(hurt_folder, tiny_data, max_quality_drop=0.02)
    second = quantized(hurt_folder, tiny_data, max_quality_drop=0.05)
    kept = [
        [
            info.path
            for info in mlflow.MlflowClient().list_artifacts(done.run_id, names.KEPT)
            if "sensitivity" in info.path
        ]
        for done in (first, second)
    ]
    assert len(kept[0]) == 1
    assert kept[1] == []
    found = json.loads(mlflow.artifacts.load_text(f"runs:/{first.run_id}/{kept[0][0]}/sensitivity.json"))
    assert next(iter(found)) == HURT


def test_the_most_sensitive_layer_is_the_one_that_was_hurt(hurt_model, tiny_model, tiny_texts):
    found, before = (sensitivities(model, tiny_texts, seed=0) for model in (hurt_model, tiny_model))
    assert next(iter(found)) == HURT
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert found[HURT] > 5 * before[HURT]


@pytest.mark.slow
def test_without_need_no_layer_stays(store, tiny_folder, tiny_data):
    done = quantized(tiny_folder, tiny_data, max_quality_drop=0.1)
    run = mlflow.get_run(done.run_id)
    assert run.data.metrics[names.LAYERS_LEFT] == 0
    assert names.SPEED_OF_ALL not in run.data.metrics
    assert "is held (" in run.data.tags[names.VERDICT]
    assert "with every layer quantized" in run.data.tags[names.VERDICT]


@pytest.fixture(scope="module")
def hurt_writer(tiny_decoder, tmp_path_factory):
    """The tiny causal model with one feed-forward unit of each group written small and read large: the same function,
    whose groups of weights leave no steps of 4 bits to the other units."""
    net = deepcopy(tiny_decoder.network)
    with torch.no_grad():
        for layer in net.model.layers:
            layer.mlp.up_proj.weight[::32] /= 1000.0
            layer.mlp.down_proj.weight[:, ::32] *= 1000.0
    folder = tmp_path_factory.mktemp("hurt-writer") / "model"
    tiny_decoder.with_net(net).save(folder)
    return folder


@pytest.mark.slow
def test_a_bound_on_a_causal_model_is_in_nats_and_its_layers_are_ranked_by_their_weights(store, hurt_writer, tiny_data):
    done = compress(
        verb="quantize",
        method="weight_only",
        model=str(hurt_writer),
        data=str(tiny_data),
        task="text-generation",
        measure_seconds=1,
        options={"bits": 4, "group_size": 32, "algorithm": "rtn", "max_quality_drop": 0.01},
    )
    shown = mlflow.artifacts.load_dict(f"runs:/{done.run_id}/{names.CONTROL}")
    assert shown["quality_on_dev_before"] < 0
    assert shown["trials"][0]["drop"] > 0.01, "without a bound it must lose more"
    assert shown["layers_left"]
    assert all(layer.endswith("mlp.down_proj") for layer in shown["layers_left"])
    assert "the bound of 0.01 on dev is held" in mlflow.get_run(done.run_id).data.tags[names.VERDICT]
