"""`register_openai` as a user runs it: proven, registered, served, scored, evaluated; no key anywhere."""

import json
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.cli import main
from tests.serving_process import served

LABELS = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["sea", "kitchen", "weather"]}, "sure": {"type": "integer"}},
    "required": ["label", "sure"],
    "additionalProperties": False,
}


def register(server, *more):
    command = ["register_openai", "--endpoint-model", "m", "--base-url", server.url, "--register-as", "asked"]
    return CliRunner().invoke(main, [*command, *more])


def scanned(folder: Path, secret: str) -> list[Path]:
    """The files that hold the secret, of at least a database and an artifact."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "settings.json" for path in files) and any(path.suffix == ".db" for path in files)
    return [path for path in files if secret.encode() in path.read_bytes()]


def test_a_version_is_proven_by_a_fresh_process_and_says_what_it_cost(openai_server, store):
    prices = ("--prompt-price", "1", "--completion-price", "2")
    result = register(openai_server, "--prompt", "Say: {text}", *prices)
    assert result.exit_code == 0, result.output
    assert len(openai_server.seen) == 2  # in memory, and in the fresh process
    assert openai_server.seen[0].body == openai_server.seen[1].body
    [version] = MlflowClient().search_model_versions("name = 'asked'")
    assert version.tags[names.RELOADED] == "same outputs"
    run = mlflow.get_run(version.run_id)
    assert run.data.metrics[names.COST] == pytest.approx(
        (run.data.metrics[names.CALL_PROMPT_TOKENS] + 2 * run.data.metrics[names.CALL_COMPLETION_TOKENS]) / 1e6
    )
    assert mlflow.pyfunc.load_model("models:/asked/1").predict(["x"])["answer"].tolist() == ["answer to Say: x"]
    assert not scanned(store, openai_server.key)
    assert openai_server.key not in result.output


def test_an_endpoint_that_answers_at_random_is_said_to(openai_server, store):
    count = iter(range(99))
    openai_server.answer = lambda prompt: f"answer {next(count)}"
    result = register(openai_server, "--prompt", "Say: {text}")
    assert result.exit_code == 0, result.output
    [version] = MlflowClient().search_model_versions("name = 'asked'")
    assert version.tags[names.RELOADED] == "same requests and columns; the endpoint repeated 0% of its answers"


@pytest.mark.parametrize("status", [401, 404, 500])
def test_an_endpoint_that_does_not_answer_registers_nothing(openai_server, store, status):
    openai_server.fail(99, status=status, body=json.dumps({"error": {"message": f"bad {openai_server.key}"}}))
    result = register(openai_server, "--prompt", "Say: {text}", "--max-retries", "0", "--trace", "true")
    assert result.exit_code == 2
    assert "nothing was registered" in result.output
    assert MlflowClient().search_registered_models() == []
    assert not scanned(store, openai_server.key)
    assert openai_server.key not in result.output


def test_examples_come_from_a_file_with_the_prompts_columns(openai_server, store):
    pd.DataFrame({"from": ["a", "b"], "to_": ["x", None], "into": ["y", "z"]}).to_csv("rows.csv", index=False)
    result = register(openai_server, "--prompt", "{to_} {into}", "--examples", "rows.csv")
    assert result.exit_code == 0, result.output
    assert openai_server.prompts == ["x y", "x y"]
    result = register(openai_server, "--prompt", "{to_} {missing}", "--examples", "rows.csv")
    assert "examples=rows.csv: there is no column missing, which the prompt names; it has: from, to_" in result.output


def test_a_classifier_behind_an_endpoint_is_evaluated_without_paying_for_a_stopwatch(openai_server, store):
    openai_server.answer = lambda prompt: json.dumps({"label": "sea" if "boat" in prompt else "kitchen", "sure": 1})
    Path("schema.json").write_text(json.dumps(LABELS))
    register(openai_server, "--prompt", "Which? {text}", "--schema", "@schema.json", "--prompt-price", "1",
             "--completion-price", "1")  # fmt: skip
    openai_server.seen.clear()
    data = pd.DataFrame(
        {"text": ["a boat", "an oven", "the boat", "rain"], "label": ["sea", "kitchen", "sea", "weather"]}
    )
    found = mlflow.models.evaluate(
        "models:/asked/1", data, targets="label", model_type="classifier", evaluators="llmops"
    ).metrics
    assert found[names.ACCURACY] == 0.75
    assert found[names.COST] > 0
    assert names.TEXTS_PER_S not in found
    assert len(openai_server.seen) == 4


@pytest.fixture
def registered(openai_server, store):
    """A version with typed columns, one of whose rows always fails."""
    openai_server.answer = lambda prompt: "none" if "bad" in prompt else json.dumps({"label": "sea", "sure": 3})
    result = register(openai_server, "--prompt", "Which? {text}", "--schema", json.dumps(LABELS))
    assert result.exit_code == 0, result.output
    return openai_server


def test_mlflows_server_answers_a_request(registered, store):
    good, bad = served("models:/asked/1", {"inputs": ["a boat", "bad"], "params": {"max_new_tokens": 7}})
    assert (good["label"], good["sure"], good["error"]) == ("sea", 3, None)
    assert (bad["label"], bad["sure"]) == (None, None) and "does not fit the schema" in bad["error"]
    assert registered.seen[-1].body["max_tokens"] == 7
    assert not scanned(store, registered.key)


@pytest.mark.spark
@pytest.mark.slow
def test_the_score_step_scores_a_table_with_it_and_ships_no_key(registered, store):
    pd.DataFrame({"text": ["a boat", "bad", "a boat", None]}).to_parquet("in.parquet")
    command = [
        sys.executable,
        "-m",
        "mlflow_llmops",
        "score",
        "--model",
        "models:/asked/1",
        "--score-input",
        "in.parquet",
    ]
    command += ["--score-output", "out.parquet", "--master", "local[1]"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {str(row["text"]): row for row in pd.read_parquet("out.parquet").to_dict(orient="records")}
    said = rows["a boat"]["prediction"]
    assert (said["label"], said["sure"]) == ("sea", 3) and pd.isna(rows["a boat"]["prediction_error"])
    assert rows["bad"]["prediction"] is None
    assert "does not fit the schema" in rows["bad"]["prediction_error"]
    assert not scanned(store, registered.key)
    assert registered.key not in done.stdout + done.stderr


@pytest.mark.parametrize("option", ["--endpoint-model", "--register-as", "--prompt", "--base-url"])
def test_a_key_or_password_among_the_options_is_stored_by_no_run(openai_server, store, option):
    secret, url = openai_server.key, openai_server.url.replace("http://", f"http://me:{openai_server.key}@")
    asked = ["--prompt", "{text}", "--base-url", openai_server.url, "--endpoint-model", "m"]
    given = url if option == "--base-url" else f"{secret} {{text}}"
    chained = ["--model", f"openai:{given}"] if option == "--endpoint-model" else ["--model", "openai:m", option, given]
    for command in (["register_openai", *asked, option, given], ["register_chain", "--prompt", "{text}", *chained]):
        result = CliRunner().invoke(main, command)
        assert (result.exit_code, secret in result.output) == (2, False), result.output
    assert len(mlflow.search_runs(filter_string="attributes.status = 'FAILED'")) == 2
    assert secret.encode() not in (store / "mlflow.db").read_bytes()
    assert not openai_server.seen
