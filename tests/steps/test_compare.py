"""Versions side by side, and the gate that judges by it."""

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError, GateFailed
from mlflow_llmops.flavors.by_kind import log_text_model
from mlflow_llmops.measure.gates import Limits
from mlflow_llmops.registry.versions import register
from mlflow_llmops.steps.compare import compare
from mlflow_llmops.steps.promote import promote, weigh


@pytest.fixture
def three_versions(store, tiny_model, tiny_exported, tiny_texts):
    """The torch model, and its graph twice: one method under two numbers."""
    tags = {names.DATA_FINGERPRINT: tiny_texts.fingerprint}
    for model, method in (
        (tiny_model, "finetune.full"),
        (tiny_exported, "export.openvino"),
        (tiny_exported, "export.openvino"),
    ):
        with mlflow.start_run():
            register(log_text_model(model).model_uri, "m", {**tags, names.METHOD: method})
    return store


def test_versions_of_one_network_differ_in_speed_only(three_versions, tiny_data):
    outcome = compare("m", "1,2,3", str(tiny_data), measure_seconds=2)
    evidence = mlflow.artifacts.load_dict(f"runs:/{outcome.run_id}/{names.COMPARISON}")
    assert [row["label"] for row in evidence["rows"]] == [
        "v1 finetune.full",
        "v2 export.openvino",
        "v3 export.openvino",
    ]
    baseline, first, second = (row["metrics"] for row in evidence["rows"])
    assert baseline[names.SPEEDUP] == 1
    assert first[names.QUALITY_CHANGE] == second[names.QUALITY_CHANGE] == 0
    assert first[names.AGREEMENT] == 1
    assert first[names.SPEEDUP + names.LOW] > 1  # torch's overhead on a network this small is most of its time
    table = mlflow.artifacts.load_text(f"runs:/{outcome.run_id}/{names.COMPARISON_TABLE}")
    assert "TF-IDF with logistic regression" in table

    promoted = promote("m", "2", names.PRODUCTION)
    assert all(reason.passed for reason in promoted.values["reasons"])
    assert MlflowClient().get_model_version_by_alias("m", names.CHAMPION).version == 2


def test_evidence_of_other_data_proves_nothing(three_versions, tiny_data, tmp_path):
    rows = (tiny_data / "test.csv").read_text().splitlines()
    (tmp_path / "half.csv").write_text("\n".join(rows[:61]) + "\n")
    compare("m", "1,2", str(tiny_data), eval_data=str(tmp_path / "half.csv"), measure_seconds=0.5)
    failed = [
        reason.check for reason in weigh("m", "2", Limits(max_quality_drop=1, min_speedup=0)) if not reason.passed
    ]
    assert failed == ["measured on the same data"]
    with pytest.raises(GateFailed, match="measured on the same data"):
        promote("m", "2", max_quality_drop=1, min_speedup=0)


def test_a_comparison_needs_two_versions_that_are_there(three_versions, tiny_data):
    with pytest.raises(ConfigError, match="^versions='1'"):
        compare("m", "1", str(tiny_data))
    with pytest.raises(ConfigError, match="version=9 of name=m is not registered; it has: 3, 2, 1"):
        compare("m", "1,9", str(tiny_data))
    with pytest.raises(ConfigError, match="the same label"):
        compare("m", "1,1", str(tiny_data))
