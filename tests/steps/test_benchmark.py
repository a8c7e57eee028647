"""Any models in one run, and reports on what runs have stored."""

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError, DataError
from mlflow_llmops.flavors import openai_chat
from mlflow_llmops.flavors._chat_settings import ChatSettings
from mlflow_llmops.flavors.by_kind import log_text_model
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.steps.benchmark import benchmark
from mlflow_llmops.steps.compare import compare
from mlflow_llmops.tracking.reload import Answers, check_asked

KEY = "KEY_OF_THE_TEST"


def test_a_folder_a_logged_graph_and_an_endpoint_in_one_run(
    store, tiny_folder, tiny_exported, tiny_texts, tiny_data, openai_server, monkeypatch
):
    truth = dict(zip(tiny_texts.test.texts, tiny_texts.test.labels, strict=True))
    wrong = tiny_texts.test.texts[0]
    openai_server.answer = lambda prompt: "sand" if prompt == wrong else truth[prompt]
    monkeypatch.setenv(KEY, openai_server.key)
    with mlflow.start_run():
        graph = log_text_model(tiny_exported).model_uri
        settings = ChatSettings(model="m", base_url=openai_server.url, prompt="{text}", key_variable=KEY)
        asked = openai_chat.log_model(settings).model_uri
    outcome = benchmark(f"{tiny_folder},{graph},{asked}", str(tiny_data), measure_seconds=1, max_size_mib=1000)
    report = mlflow.artifacts.load_dict(f"runs:/{outcome.run_id}/{names.COMPARISON}")
    first, second, third = (row["metrics"] for row in report["rows"])
    assert first[names.SPEEDUP] == 1 and names.SPEEDUP + names.LOW in second and names.SPEEDUP not in third
    assert second[names.AGREEMENT] == 1
    assert third[names.ACCURACY] == pytest.approx(1 - 1 / len(tiny_texts.test))
    assert len(openai_server.seen) == len(tiny_texts.test), "each text is paid once"
    assert names.CALIBRATION_ERROR in first and names.LATENCY_P99 in first and names.COLD_START in first
    assert report["recommended"] in [row["label"] for row in report["rows"][:2]], "a limit on size needs a size"
    why = next(why for label, why in report["lost"].items() if asked.endswith(label))
    assert "max_size_mib=1000 could not be measured" in why
    assert any("not in turn with the others" in note for note in report["notes"])
    found = {file.path for file in MlflowClient().list_artifacts(outcome.run_id)}
    assert {names.COMPARISON_PAGE, names.PARETO_PNG, names.CLASSES_TABLE, names.CONFUSION_PNG} <= found
    with pytest.raises(ConfigError, match="is the baseline, and no text model of this package"):
        benchmark(f"{asked},{graph}", str(tiny_data))


@pytest.mark.parametrize(
    ("models", "said"),
    [("a", "at least two"), ("a,a", "stands there twice"), ("builtin:encoder,a", "never trained")],
)
def test_mistakes_in_the_list_are_told(store, tiny_data, models, said):
    with pytest.raises(ConfigError, match=said):
        benchmark(models, str(tiny_data))


def test_other_rows_than_the_baselines_are_refused():
    from mlflow_llmops.data.texts import Texts

    texts = ("a", "b")
    mine, other = (Answers(texts_fingerprint=Texts(each).fingerprint) for each in (texts, ("a", "c")))
    check_asked({"baseline": mine, "candidate": mine}, texts)
    for bad in (other, Answers()):
        with pytest.raises(DataError, match="candidate was evaluated on other rows"):
            check_asked({"baseline": mine, "candidate": bad}, texts)


def stored_run(method: str, source: str | None, speed: float, change: float, data="d", hardware="h") -> tuple[str, str]:
    """A run as the verbs leave it; gives its id and that of its model."""
    with mlflow.start_run(run_name=method) as run:
        made = mlflow.create_external_model(name="model", source_run_id=run.info.run_id)
        mlflow.log_outputs([mlflow.entities.LoggedModelOutput(made.model_id, 0)]) if hasattr(
            mlflow, "log_outputs"
        ) else MlflowClient().log_outputs(run.info.run_id, [mlflow.entities.LoggedModelOutput(made.model_id, 0)])
        mlflow.set_tags(
            {
                names.VERB: method.split(".")[0],
                names.METHOD: method,
                names.DATA_FINGERPRINT: data,
                names.HARDWARE: hardware,
                names.SOURCE_MODEL: "the source",
                **({names.SOURCE_MODEL_ID: source} if source else {}),
            }
        )
        metrics = {names.ACCURACY: 0.9 + change, names.TEXTS_PER_S: 100 * speed, names.DISK: 10 / speed}
        mlflow.log_metrics({**metrics, **{names.BASELINE_PREFIX + name: value for name, value in metrics.items()}})
        for name, value in ((names.SPEEDUP, speed), (names.QUALITY_CHANGE, change)):
            mlflow.log_metrics({name: value, name + names.LOW: value - 0.01, name + names.HIGH: value + 0.01})
    return run.info.run_id, made.model_id


def test_stored_runs_are_added_up_along_their_chain_and_nothing_is_measured(store):
    teacher, taught = stored_run("finetune.full", None, 1.1, 0.5)
    first, pruned = stored_run("prune.neurons", taught, 2.0, -0.01)
    second, _ = stored_run("quantize.int8_static", pruned, 3.0, -0.02)
    outcome = compare(runs=f"{second},{teacher},{first}", max_quality_drop=0.045)
    rows = {row.label: row.measured for row in outcome.values["rows"]}
    assert list(rows) == ["finetune.full", "prune.neurons", "quantize.int8_static"]
    assert rows["finetune.full"][names.SPEEDUP] == 1, "the teacher is the baseline, whatever it was trained from"
    speed, change = (rows["quantize.int8_static"][name] for name in (names.SPEEDUP, names.QUALITY_CHANGE))
    assert speed == Estimate(pytest.approx(6.0), pytest.approx(1.99 * 2.99), pytest.approx(2.01 * 3.01))
    assert (change.value, change.low) == (pytest.approx(-0.03), pytest.approx(-0.05))
    report = outcome.values["report"].as_json()
    assert report["recommended"] == "prune.neurons"
    why = report["lost"]["quantize.int8_static"]
    assert "max_quality_drop=0.045 is missed by 0.005 (0.05 at the interval's end)" in why
    assert [(step["method"], step["of"]) for step in report["steps"]] == [
        ("finetune.full", "the source"),
        ("prune.neurons", "finetune.full"),
        ("quantize.int8_static", "prune.neurons"),
    ]
    same = compare(experiment="tests")
    assert [row.label for row in same.values["rows"]] == list(rows)


@pytest.mark.parametrize("other", [{"data": "e"}, {"hardware": "i"}, {"hardware": ""}])
def test_numbers_of_other_data_or_hardware_are_not_ranked(store, other):
    one, model = stored_run("finetune.full", None, 1.0, 0.0)
    two, _ = stored_run("prune.neurons", model, 2.0, 0.0, **other)
    with pytest.raises(ConfigError, match="so they are not ranked"):
        compare(runs=f"{one},{two}")


def test_a_report_needs_one_source_that_has_measured_models(store):
    with mlflow.start_run() as empty:
        pass
    for given, said in (
        ({}, "given: none"),
        ({"runs": "a", "experiment": "b"}, "given: runs, experiment"),
        ({"runs": "a", "versions": "1,2"}, "are those of a registered model"),
        ({"runs": "missing"}, "there is no such run"),
        ({"runs": empty.info.run_id}, "has measured no model"),
        ({"experiment": "missing"}, "write its name"),
        ({"experiment": "tests"}, "none of its finished runs"),
        ({"name": "missing"}, "no registered version"),
    ):
        with pytest.raises(ConfigError, match=said):
            compare(**given)
