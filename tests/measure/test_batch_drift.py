"""A score that depends on what it is scored with is found out, and by how much; one that stands alone has no drift."""

from dataclasses import replace

import numpy as np
import pytest

from mlflow_llmops import names
from mlflow_llmops.measure.batch_drift import NO_DRIFT, batch_drift
from mlflow_llmops.methods.quantize.int8_dynamic import Int8Dynamic
from mlflow_llmops.methods.quantize.int8_static import Int8Static


def running(model, run):
    """`model` with another network."""
    other = replace(model)
    vars(other)["run"] = run
    return other


def logits(share: np.ndarray) -> np.ndarray:
    """Of two labels, the first with the probability `share`."""
    return np.log(np.stack([share, 1 - share], axis=1)).astype(np.float32)


def test_what_batch_mates_and_padding_move_is_measured_apart(tiny_model, tiny_texts):
    def by_mates(inputs):
        return logits(np.full(len(inputs["input_ids"]), 0.5 if len(inputs["input_ids"]) == 1 else 0.4375))

    def by_padding(inputs):
        return logits(np.where(inputs["attention_mask"].all(axis=1), 0.5, 0.75))

    drifts = [batch_drift(running(tiny_model, run), tiny_texts.test.texts) for run in (by_mates, by_padding)]
    found = [[drift[name] for name in (names.BATCH_DRIFT, names.PADDING_DRIFT)] for drift in drifts]
    np.testing.assert_allclose(found, [[0.0625, 0], [0, 0.25]], atol=1e-6)


def test_a_text_keeps_its_tokens_and_no_batch_has_padding_where_mates_are_asked_for(tiny_model, tiny_texts):
    seen = []

    def noting(inputs):
        seen.append(inputs)
        return np.zeros((len(inputs["input_ids"]), 3), np.float32)

    batch_drift(running(tiny_model, noting), ["", "rain", *tiny_texts.test.texts])
    batches = [inputs for inputs in seen if len(inputs["input_ids"]) > 1]
    assert max(len(inputs["input_ids"]) for inputs in batches) == 32
    assert all(inputs["attention_mask"].all() for inputs in batches)
    alone = {tuple(inputs["input_ids"][0]) for inputs in seen if len(inputs["input_ids"]) == 1}
    assert {tuple(row) for inputs in batches for row in inputs["input_ids"]} <= alone
    closing = tiny_model.tokenizer("rain")["input_ids"][-1]
    assert {row[-1] for inputs in batches for row in inputs["input_ids"]} == {closing}


def test_one_text_has_no_mates_and_no_text_has_no_drift(tiny_model):
    assert batch_drift(tiny_model, ["rain"])[names.BATCH_DRIFT] == 0
    assert batch_drift(tiny_model, []) == {names.BATCH_DRIFT: 0.0, names.PADDING_DRIFT: 0.0}


@pytest.fixture(scope="module")
def drifts(tiny_model, tiny_texts, tmp_path_factory):
    made = {
        method: method().apply(tiny_model, tiny_texts, tmp_path_factory.mktemp(method.__name__))
        for method in (Int8Static, Int8Dynamic)
    }
    return {
        method: batch_drift(model, tiny_texts.test.texts) for method, model in {**made, "torch": tiny_model}.items()
    }


def test_a_static_score_stands_alone_and_a_dynamic_one_does_not(drifts):
    for name in (names.BATCH_DRIFT, names.PADDING_DRIFT):
        assert drifts["torch"][name] < NO_DRIFT
        assert drifts[Int8Static][name] < drifts[Int8Dynamic][name] / 100
    assert drifts[Int8Dynamic][names.BATCH_DRIFT] > 1e-4
