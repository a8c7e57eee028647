"""The main job, small: the whole chain through the real parts, Spark too."""

import mlflow
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError, DataError, GateFailed
from mlflow_llmops.steps.main import main
from mlflow_llmops.steps.promote import promote

SMALL = {
    "set": "finetune.full.epochs=1,distill.logits.epochs=2,prune.neurons.epochs=0.5",
    "register_as": "tiny",
    "measure_seconds": 1.5,
}


@pytest.mark.spark
def test_the_main_job_ends_with_a_champion_that_scored_every_row(store, tiny_folder, tiny_data, tiny_texts):
    # 120 test texts and a second of measuring beside other jobs prove little: the bounds are wide
    outcome = main(str(tiny_folder), str(tiny_data), max_quality_drop=0.2, min_speedup=0, **SMALL)
    runs = mlflow.search_runs(output_format="list")
    parent = next(run for run in runs if run.info.run_id == outcome.run_id)
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == outcome.run_id]
    methods = ["finetune.full", "distill.logits", "prune.neurons", "quantize.int8_static"]
    assert sorted(run.info.run_name for run in children) == sorted(
        [*methods, "compare", "promote to Staging", "promote to Production", "score"]
    )
    shared = {names.ACCURACY, names.TEXTS_PER_S, names.LATENCY_P95, names.PEAK_MEMORY, names.DISK, names.SPEEDUP}
    for run in children:
        if run.info.run_name in methods[:3]:  # what the options left open stands in the run
            stage = "recover" if "prune" in run.info.run_name else "train"
            assert {f"{stage}.{name}" for name in ("epochs", "learning_rate", "seed")} <= set(run.data.params)
            assert f"{stage}/loss" in run.data.metrics
    for run in [parent, *(run for run in children if run.info.run_name in methods)]:
        assert shared <= set(run.data.metrics)
        assert {names.BASELINE_PREFIX + name for name in shared - {names.SPEEDUP}} <= set(run.data.metrics)
    assert all(run.info.status == "FINISHED" for run in runs)

    client = MlflowClient()
    assert len(client.search_model_versions("name = 'tiny'")) == len(methods)
    champion = client.get_model_version_by_alias("tiny", names.CHAMPION)
    assert str(champion.version) == outcome.values["winner"]
    promoted = next(run for run in children if run.info.run_name == "promote to Production")
    checks = {
        check["check"] for check in mlflow.artifacts.load_dict(f"runs:/{promoted.info.run_id}/{names.GATE}")["checks"]
    }
    assert {"quality change at least -0.2", "speed-up at least 0"} <= checks, "main's own bounds are the gate's"
    assert champion.current_stage == names.PRODUCTION
    assert champion.tags[names.PROMOTED_BY] and champion.tags[names.PROMOTED_WHY]

    scored = pd.read_parquet("scored.parquet")
    assert sorted(scored["text"]) == sorted(tiny_texts.test.texts)
    assert {row["label"] for row in scored["prediction"]} <= set(tiny_texts.labels)

    artifacts = {file.path for file in client.list_artifacts(outcome.run_id)}
    assert {names.COMPARISON, names.COMPARISON_TABLE, names.PARETO_PNG, names.COMPARISON_PAGE} <= artifacts
    evidence = mlflow.artifacts.load_dict(f"runs:/{outcome.run_id}/{names.COMPARISON}")
    assert [row["label"] for row in evidence["rows"]] == methods
    page = mlflow.artifacts.load_text(f"runs:/{outcome.run_id}/{names.COMPARISON_PAGE}")
    assert "quantize.int8_static" in page
    assert "<script src=" not in page  # it opens without a network

    held = str(champion.version)
    with pytest.raises(GateFailed, match="speed-up at least 1000"):
        promote("tiny", held, names.PRODUCTION, min_speedup=1000)
    assert str(client.get_model_version_by_alias("tiny", names.CHAMPION).version) == held


def test_a_job_that_fails_on_the_way_registers_nothing(store, tiny_folder, tiny_data):
    small = {**SMALL, "measure_seconds": 0.2}
    small["set"] += ",distill.logits.student=layers:99"
    with pytest.raises(ConfigError, match="student=layers:99"):
        main(str(tiny_folder), str(tiny_data), **small)
    assert MlflowClient().search_registered_models() == []


def test_an_output_that_cannot_be_written_is_told_before_the_work(store, tiny_folder, tiny_data):
    (store / "mine").mkdir()
    (store / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="score_output=mine exists"):
        main(str(tiny_folder), str(tiny_data), score_output="mine", **SMALL)
    assert len(mlflow.search_runs(output_format="list")) == 1, "no method ran"


def test_a_version_that_was_never_compared_is_refused(store, tiny_exported):
    from mlflow_llmops.flavors import exported_text
    from mlflow_llmops.registry.versions import register

    with mlflow.start_run():
        version = register(exported_text.log_model(tiny_exported.folder).model_uri, "lonely", {})
    with pytest.raises(GateFailed, match="run the compare step first"):
        promote("lonely", version)
    assert MlflowClient().get_model_version("lonely", version).current_stage == "None"
    assert mlflow.search_runs(output_format="list")[0].info.status == "FAILED"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"methods": "prune.neurone"}, "method prune.neurone is not known; near ones: prune.neurons"),
        ({"methods": " , "}, "methods: give at least one after finetune.full"),
        ({"methods": "quantize.int8_static,prune.neurons"}, "prune.neurons takes a torch model"),
        ({"methods": "prune.neurons,prune.neurons"}, "stands there twice"),
        ({"set": "prune.neurons.fraction=2"}, "^fraction='2'"),
        ({"set": "prune.heads.fraction=0.5"}, "^set='prune.heads.fraction=0.5'"),
        ({"register_as": "a/b"}, "^register_as='a/b'"),
    ],
)
def test_mistakes_are_told_before_the_first_minute_of_work(store, tiny_folder, tiny_data, values, message):
    with pytest.raises(ConfigError, match=message):
        main(str(tiny_folder), str(tiny_data), **values)
    run = mlflow.search_runs(output_format="list")[0]
    assert run.info.status == "FAILED"
    assert run.data.tags[names.ERROR]
    assert MlflowClient().search_registered_models() == []
