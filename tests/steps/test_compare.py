"""Versions side by side, and the gate that judges by it."""

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError, GateFailed
from mlflow_llmops.flavors.by_kind import log_text_model
from mlflow_llmops.measure.gates import Limits
from mlflow_llmops.registry.ancestry import ancestors
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
    outcome = compare("m", "1,2,3", str(tiny_data), measure_seconds=4)
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
    # torch's overhead on a network this small is most of its time, and all the more for one text alone
    assert first[names.SPEEDUP + names.LOW] > 1
    assert first[names.LATENCY_SPEEDUP + names.LOW] > 1
    table = mlflow.artifacts.load_text(f"runs:/{outcome.run_id}/{names.COMPARISON_TABLE}")
    assert "TF-IDF with logistic regression" in table

    with pytest.raises(GateFailed, match="quality change at least -0.02"):
        promote("m", "2", names.PRODUCTION)  # 120 equal answers are no proof of that
    promoted = promote("m", "2", names.PRODUCTION, max_quality_drop=0.05)
    assert all(reason.passed for reason in promoted.values["reasons"])
    assert MlflowClient().get_model_version_by_alias("m", names.CHAMPION).version == 2


def test_each_model_has_a_run_of_its_own_whose_numbers_its_logged_model_has_with_their_data(
    three_versions, tiny_data, tiny_texts
):
    outcome = compare("m", "1,2", str(tiny_data), measure_seconds=0.3)
    inside = f"tags.`mlflow.parentRunId` = '{outcome.run_id}'"
    runs = {run.info.run_name: run for run in mlflow.search_runs(filter_string=inside, output_format="list")}
    assert set(runs) == {"v1 finetune.full", "v2 export.openvino"}
    client = MlflowClient()
    for row in outcome.values["rows"]:
        run = runs[row.label]
        assert {names.ACCURACY, names.SPEEDUP, names.LATENCY_P95 + names.HIGH, names.DISK} <= set(run.data.metrics)
        logged = client.get_logged_model(row.model_id)
        assert client.get_model_version("m", row.version).source in (logged.model_uri, logged.artifact_location)
        linked = [each for each in logged.metrics if each.run_id == run.info.run_id]
        assert {each.key: each.value for each in linked} == run.data.metrics
        assert {each.dataset_digest for each in linked} == {tiny_texts.test.fingerprint}


def test_a_place_is_taken_from_its_holder_only_by_a_comparison_that_says_something_about_it(three_versions, tiny_data):
    lax = {"max_quality_drop": 1.0, "min_speedup": 0.0, "remeasure": "never"}
    compare("m", "1,2,3", str(tiny_data), measure_seconds=0.5)
    promote("m", "2", names.PRODUCTION, **lax)
    with pytest.raises(GateFailed, match="version 1, in the last of 1 comparison.*compare it with version 2"):
        promote("m", "3", names.PRODUCTION, **lax)
    compare("m", "2,3", str(tiny_data), measure_seconds=0.5)
    promoted = promote("m", "3", names.PRODUCTION, **lax)
    said = {reason.check: reason.measured for reason in promoted.values["reasons"]}
    assert said["compared with another version"] == "version 2, in the last of 2 comparison(s)"
    with pytest.raises(GateFailed, match="the baseline of its own comparison"):
        promote("m", "2", names.STAGING, **lax)


def test_what_a_version_was_made_from_is_found_through_every_step(store, tiny_folder, tiny_data):
    from mlflow_llmops.steps.compress import compress

    small = {"data": str(tiny_data), "register_as": "m", "measure_seconds": 0.5}
    compress("distill", "logits", str(tiny_folder), **small, options={"student": "layers:1", "epochs": "0"})
    MlflowClient().set_registered_model_alias("m", "mine", "1")
    compress("export", "onnx", "models:/m@mine", **small)
    compress("export", "openvino", "models:/m/1", **small)
    compress("finetune", "full", str(tiny_folder), **small, options={"epochs": "0"})
    assert [ancestors("m", number) for number in "1234"] == [set(), {"1"}, {"1"}, set()]


def test_evidence_of_other_data_proves_nothing(three_versions, tiny_data, tmp_path):
    rows = (tiny_data / "test.csv").read_text().splitlines()
    (tmp_path / "half.csv").write_text("\n".join(rows[:61]) + "\n")
    compare("m", "1,2", str(tiny_data), eval_data=str(tmp_path / "half.csv"), measure_seconds=0.5)
    failed = [
        reason.check for reason in weigh("m", "2", Limits(max_quality_drop=1, min_speedup=0)) if not reason.passed
    ]
    assert failed == ["measured on the same data"]
    with pytest.raises(GateFailed, match="measured on the same data"):
        promote("m", "2", max_quality_drop=1, min_speedup=0, remeasure="never")


def test_a_version_that_does_not_say_what_it_was_trained_on_is_refused(three_versions, tiny_data):
    compare("m", "1,2", str(tiny_data), measure_seconds=0.5)
    MlflowClient().delete_model_version_tag("m", "2", names.DATA_FINGERPRINT)
    with pytest.raises(GateFailed, match="measured on the same data"):
        promote("m", "2", max_quality_drop=1, min_speedup=0)


def test_a_comparison_needs_two_versions_that_are_there(three_versions, tiny_data):
    with pytest.raises(ConfigError, match="^versions='1'"):
        compare("m", "1", str(tiny_data))
    with pytest.raises(ConfigError, match="version=9 of name=m is not registered; it has: 3, 2, 1"):
        compare("m", "1,9", str(tiny_data))
    with pytest.raises(ConfigError, match="the same label"):
        compare("m", "1,1", str(tiny_data))
