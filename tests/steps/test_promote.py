"""The gate measures again what its evidence does not tell, and whoever is refused changes nothing."""

import mlflow
import pytest
from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.cli import main
from mlflow_llmops.errors import DataError, GateFailed
from mlflow_llmops.flavors.by_kind import log_text_model
from mlflow_llmops.registry import promotion
from mlflow_llmops.registry.versions import register
from mlflow_llmops.steps import compare as compare_step
from mlflow_llmops.steps.compare import compare
from mlflow_llmops.steps.promote import promote

LAX = {"max_quality_drop": 1.0, "min_speedup": 0.0, "measure_seconds": 0.3}


@pytest.fixture
def versions(store, tiny_exported, tiny_texts):
    """One graph under three numbers; nothing tells how it was made but which data it saw."""
    with mlflow.start_run():
        uri = log_text_model(tiny_exported).model_uri
    for _ in range(3):
        register(uri, "m", {names.DATA_FINGERPRINT: tiny_texts.fingerprint})
    return MlflowClient()


def comparisons() -> int:
    return len(mlflow.search_runs(filter_string="attributes.run_name = 'compare'", search_all_experiments=True))


def places(client: MlflowClient) -> list:
    found = client.search_model_versions("name = 'm'")
    told = [(v.version, v.current_stage, names.PROMOTED_AT in v.tags) for v in found]
    model = client.get_registered_model("m")
    return [*sorted(told), model.aliases, sorted(model.tags)]


@pytest.mark.slow
def test_evidence_of_other_hardware_is_measured_again_on_the_data_of_that_run(versions, tiny_data, monkeypatch):
    with monkeypatch.context() as elsewhere:
        other = {**compare_step.hardware_tags(), names.HARDWARE: "another machine"}
        elsewhere.setattr(compare_step, "hardware_tags", lambda: other)
        compare("m", "1,2", str(tiny_data), measure_seconds=0.3)
    with pytest.raises(GateFailed, match="timed on this hardware: another machine"):
        promote("m", "2", remeasure="never", **LAX)
    assert comparisons() == 1
    promoted = promote("m", "2", **LAX)
    assert comparisons() == 2
    said = {reason.check: reason.measured for reason in promoted.values["reasons"]}
    assert said["compared with another version"] == "version 1, in the last of 2 comparison(s)"
    assert "another machine" not in said["timed on this hardware"]
    assert versions.get_model_version_by_alias("m", names.CHALLENGER).version == 2
    promote("m", "2", names.PRODUCTION, **LAX)
    assert comparisons() == 2, "what applies is not measured again"


@pytest.mark.slow
def test_the_version_that_holds_the_place_is_what_it_is_measured_against(versions, tiny_data):
    compare("m", "1,2", str(tiny_data), measure_seconds=0.3)
    promote("m", "2", names.PRODUCTION, **LAX)
    told = pytest.raises(GateFailed, match="no run says which data version 3 was made with: give data=")
    with told:
        promote("m", "3", names.PRODUCTION, **LAX)
    assert comparisons() == 1
    with pytest.raises(DataError, match="^data=nowhere.csv"):
        promote("m", "3", names.PRODUCTION, data="nowhere.csv", **LAX)
    promote("m", "3", names.PRODUCTION, data=str(tiny_data), remeasure="always", **LAX)
    run_id = versions.get_model_version("m", "3").tags[names.EVIDENCE_RUN]
    evidence = mlflow.artifacts.load_dict(f"runs:/{run_id}/{names.COMPARISON}")
    assert [row["version"] for row in evidence["rows"]] == ["2", "3"]
    assert mlflow.get_run(run_id).data.tags["mlflow.parentRunId"], "it lies in the promotion's run"
    assert versions.get_model_version("m", "2").tags[names.REPLACED_BY] == "3"


@pytest.mark.slow
def test_a_refusal_is_exit_code_3_a_table_an_artifact_and_no_change(versions, tiny_data):
    compare("m", "1,2,3", str(tiny_data), measure_seconds=0.3)
    promote("m", "2", names.PRODUCTION, **LAX)
    compare("m", "2,3", str(tiny_data), measure_seconds=0.3)
    before, measured = places(versions), comparisons()
    command = ["promote", "--name", "m", "--version", "3", "--to", "Production", "--max-quality-drop", "1"]
    command += ["--min-speedup", "0", "--max-latency-p95-ms"]
    result = CliRunner().invoke(main, [*command, "0.000001"])
    assert result.exit_code == 3
    assert "p95 latency at most 1e-06 ms" in result.output
    assert "FAILED" in result.output and "passed" in result.output
    assert places(versions) == before
    assert comparisons() == measured, "a bound that was missed is not tried again"
    run = mlflow.search_runs(output_format="list", search_all_experiments=True)[0]
    assert (run.info.status, run.data.tags[names.VERDICT]) == ("FAILED", "refused")
    checks = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/{names.GATE}")["checks"]
    assert [check["check"] for check in checks if not check["passed"]] == ["p95 latency at most 1e-06 ms"]
    assert "FAILED" in mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/{names.GATE_TABLE}")
    passed = CliRunner().invoke(main, [*command, "1000000"])
    assert passed.exit_code == 0, passed.output
    assert "version 2 is archived" in passed.output


def test_doctor_rollback_and_history_on_the_command_line(versions):
    run = CliRunner().invoke
    assert "no promotion of m is on record" in run(main, ["history", "--name", "m"]).output
    promotion.promote("m", "2", names.PRODUCTION, [], "run")
    assert run(main, ["doctor", "--name", "m"]).exit_code == 0
    versions.set_registered_model_alias("m", names.CHAMPION, "3")
    sick = run(main, ["doctor", "--name", "m"])
    assert sick.exit_code == 4
    assert "--mend" in sick.output
    assert run(main, ["doctor", "--name", "m", "--mend"]).exit_code == 0
    assert versions.get_model_version_by_alias("m", names.CHAMPION).version == 2
    nothing = run(main, ["rollback", "--name", "m"])
    assert (nothing.exit_code, "before version 2 is on record" in nothing.output) == (2, True)
    promotion.promote("m", "3", names.PRODUCTION, [], "run")
    back = run(main, ["rollback", "--name", "m", "--to", "Production", "--why", "complaints"])
    assert back.exit_code == 0
    told = run(main, ["history", "--name", "m", "--to", "Production"])
    assert [word in told.output for word in ("promote", "rollback", "complaints", "now")] == [True] * 4
    versions.delete_model_version("m", "2")
    versions.delete_model_version("m", "3")
    lost = run(main, ["doctor", "--name", "m", "--mend", "True"])
    assert (lost.exit_code, "promote another" in lost.output) == (4, True)
    assert run(main, ["doctor", "--name", "nobody"]).exit_code == 2
    for verb in ("doctor", "rollback", "history"):
        assert "Error: name='': name the registered model" in run(main, [verb, "--name", ""]).output
    assert run(main, ["history", "--name", "nobody"]).exit_code == 2
