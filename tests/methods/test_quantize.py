"""What sets the two int8 methods apart: whether a text's score depends on the texts it is scored with."""

import numpy as np
import pytest

from mlflow_llmops.batching.scorer import pad
from mlflow_llmops.methods.quantize.int8_dynamic import Int8Dynamic
from mlflow_llmops.methods.quantize.int8_static import Int8Static


def drift(model, ids) -> float:
    """How far the first text's logits move when others of its length are scored along."""
    alone = model.run(pad(ids[:1], model.pad_id))[0]
    together = model.run(pad(ids, model.pad_id))[0]
    return float(np.abs(alone - together).max())


@pytest.fixture(scope="module")
def ids(tiny_model):
    random = np.random.default_rng(0)
    return [random.integers(5, len(tiny_model.tokenizer), 12) for _ in range(32)]


def test_a_static_score_stands_alone_and_a_dynamic_one_does_not(tiny_model, tiny_texts, ids, tmp_path):
    (tmp_path / "static").mkdir()
    (tmp_path / "dynamic").mkdir()
    static = Int8Static().apply(tiny_model, tiny_texts, tmp_path / "static")
    dynamic = Int8Dynamic().apply(tiny_model, tiny_texts, tmp_path / "dynamic")
    assert drift(static, ids) < 1e-5
    assert drift(dynamic, ids) > 1e-4
