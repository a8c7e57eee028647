"""What zeros, a smaller vocabulary and landmarks are said to have given, in whole runs."""

import mlflow
import pytest

from mlflow_llmops import names
from mlflow_llmops.steps.compress import compress

pytestmark = pytest.mark.slow


def run_of(verb, method, folder, data, **options):
    outcome = compress(verb, method, str(folder), str(data), measure_seconds=1, speed_grid=False, options=options)
    return mlflow.get_run(outcome.run_id)


def test_zeros_are_counted_packed_and_said_to_gain_nothing(store, tiny_folder, tiny_data):
    run = run_of("prune", "magnitude", tiny_folder, tiny_data, fraction="0.9", recovery="none")
    metrics = run.data.metrics
    share = 1 - metrics[names.NONZERO_PARAMETERS] / metrics[names.PARAMETERS]
    assert metrics[names.SPARSITY] == pytest.approx(share) and share > 0.4
    assert metrics[names.BASELINE_PREFIX + names.SPARSITY] < 0.1
    assert metrics[names.SIZE_RATIO] == pytest.approx(1, abs=0.01)
    packed = metrics[names.COMPRESSED] / metrics[names.BASELINE_PREFIX + names.COMPRESSED]
    assert metrics[names.COMPRESSED_RATIO] == pytest.approx(packed) and packed < 0.9
    said = run.data.tags[names.VERDICT]
    assert f"{100 * share:.0f} % of its parameters are zero, and dense hardware gains neither size nor speed" in said
    assert "of the size;" not in said, "what zlib makes of it is no gain in size"


def test_the_share_of_texts_that_are_cut_otherwise_is_in_the_run_and_its_verdict(store, tiny_folder, tiny_data):
    run = run_of("prune", "vocabulary", tiny_folder, tiny_data)
    share = run.data.metrics[names.FINER_TEXTS]
    assert run.data.metrics[names.FINER_TEXTS + names.LOW] <= share <= run.data.metrics[names.FINER_TEXTS + names.HIGH]
    assert f"{100 * share:.1f} % of the texts in evaluation are cut into finer pieces" in run.data.tags[names.VERDICT]
    assert run.data.metrics[names.PARAMETERS] < run.data.metrics[names.BASELINE_PREFIX + names.PARAMETERS]
    assert run.data.tags[names.RELOADED] == "same outputs"


def test_landmarks_are_timed_by_length_and_the_run_says_from_where_on_they_pay(store, tiny_folder, tiny_data):
    run = run_of("factorize", "attention", tiny_folder, tiny_data, engine="onnx", landmarks="32", recovery="none")
    metrics = run.data.metrics
    for name in names.SPEEDUP_AT_LENGTH.values():
        assert metrics[name + names.LOW] <= metrics[name] <= metrics[name + names.HIGH]
    said, table = run.data.tags[names.VERDICT], mlflow.artifacts.load_text(f"{run.info.artifact_uri}/lengths.md")
    if names.BREAK_EVEN in metrics:
        length = metrics[names.BREAK_EVEN]
        assert f"it pays from {length:,.0f} tokens on" in said
        assert "and never for this model, which takes 64" in said
    else:
        assert "it pays at no length up to 2,048 tokens" in said
    assert "| 2048 | " in table
