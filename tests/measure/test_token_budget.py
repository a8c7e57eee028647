"""A budget is stored where it is faster on this machine, and the reloaded version uses it."""

import time
from dataclasses import replace

import mlflow
import numpy as np
import pytest

from mlflow_llmops.batching.plan import TOKEN_BUDGET
from mlflow_llmops.flavors.by_kind import save_text_model
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.measure import token_budget
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.measure.token_budget import calibrate_budget
from mlflow_llmops.names import HARDWARE


@pytest.fixture
def copied(tiny_exported, tmp_path):
    folder = tmp_path / "graph"
    folder.mkdir()
    for path in tiny_exported.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return replace(tiny_exported, folder=folder)


def burning(seconds_of):
    """An engine that burns `seconds_of(padded tokens)` of the CPU for each batch."""

    def run(inputs):
        end = time.process_time() + seconds_of(inputs["input_ids"].size)
        while time.process_time() < end:
            pass
        return np.zeros((len(inputs["input_ids"]), 2), np.float32)

    return lambda kind, folder, threads: run


@pytest.mark.parametrize(
    ("seconds_of", "expected"),
    [
        (lambda tokens: 0.001 if tokens <= 1024 else 0.02, 1024),  # large batches fall out of a cache
        (lambda tokens: 0.004, 0),  # each batch costs as much: the largest, which is usual
    ],
)
def test_the_fastest_budget_is_stored_with_its_hardware_and_used(
    copied, tiny_texts, tmp_path, monkeypatch, seconds_of, expected
):
    monkeypatch.setattr(token_budget, "open_engine", burning(seconds_of))
    before = copied.artifact
    calibrate_budget(copied, tiny_texts.train.texts * 20)
    hardware = hardware_tags()[HARDWARE] if expected else ""
    assert copied.artifact == replace(before, token_budget=expected, token_budget_hardware=hardware)
    in_use = expected or TOKEN_BUDGET["openvino"]
    assert scorer_of(copied).token_budget == in_use
    save_text_model(copied, tmp_path / "saved")
    for config, wanted in (({}, in_use), ({"token_budget": 77}, 77)):
        loaded = mlflow.pyfunc.load_model(str(tmp_path / "saved"), model_config=config or None)
        assert loaded._model_impl._handle.session.scorer.scorer.token_budget == wanted


def test_a_real_engine_is_timed_and_its_answers_stay(copied, tiny_texts):
    texts = list(tiny_texts.test.texts)
    before = scorer_of(copied).logits(texts)
    calibrate_budget(copied, tiny_texts.train.texts)
    assert copied.artifact.token_budget in (0, 512, 1024)
    np.testing.assert_allclose(scorer_of(copied).logits(texts), before, atol=1e-5)


def test_a_torch_model_is_left_alone(tiny_model, tiny_texts):
    calibrate_budget(tiny_model, tiny_texts.train.texts)
    assert scorer_of(tiny_model).token_budget == TOKEN_BUDGET["torch"]
