"""A prompt to an endpoint as an MLflow model: a bad row costs itself, an equal prompt nothing, the key is nowhere."""

import json
import logging
import traceback
from collections import Counter
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from mlflow_llmops.errors import ConfigError, LLMOpsError
from mlflow_llmops.flavors import openai_chat
from mlflow_llmops.flavors._chat_settings import ChatSettings

TEXTS = [f"text {i}" for i in range(8)]
SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["sea", "kitchen"]},
        "stars": {"type": "integer"},
        "sure": {"type": "number"},
        "spam": {"type": "boolean"},
        "words": {"type": "array", "items": {"type": "string"}},
        "more": {"type": "object"},
    },
    "required": ["label", "stars", "sure", "spam", "words", "more"],
    "additionalProperties": False,
}
GOOD = {"label": "sea", "stars": 3, "sure": 0.5, "spam": False, "words": ["a", "b"], "more": {"x": [1]}}


def settings_of(server, **options) -> ChatSettings:
    given = {"prompt": "Say: {text}", "timeout": 5.0, "max_retries": 1, **options}
    return ChatSettings("m", base_url=server.url, **given)


@pytest.fixture
def loaded(openai_server, tmp_path):
    """A saved model, as MLflow loads it."""
    count = iter(range(100))

    def of(**options):
        path = tmp_path / f"saved{next(count)}"
        openai_chat.save_model(settings_of(openai_server, **options), path)
        return mlflow.pyfunc.load_model(str(path))

    return of


def test_every_form_of_input_gets_an_answer_in_its_row(openai_server, loaded):
    model = loaded()
    openai_server.delay = lambda prompt: 0.02 * (int(prompt.split()[-1]) % 3)
    expected = [f"answer to Say: {text}" for text in TEXTS]
    for given in (TEXTS, pd.Series(TEXTS), pd.DataFrame({"body": TEXTS}), np.array(TEXTS, dtype=object)):
        assert model.predict(given)["answer"].tolist() == expected
    assert sorted(openai_server.prompts) == sorted(f"Say: {text}" for text in TEXTS)
    assert openai_server.most_at_once == 4


def test_a_prompt_of_several_columns_is_a_signature_of_several(openai_server, loaded):
    model = loaded(prompt='From {source} to {target}, as {"x": 1}: {source}', system="Be {brief}.")
    assert model.metadata.get_input_schema().input_names() == ["source", "target"]
    given = pd.DataFrame({"target": ["b"], "source": ["a"], "other": [1]})
    assert model.predict(given)["answer"].tolist() == ['answer to From a to b, as {"x": 1}: a']
    [seen] = openai_server.seen
    assert seen.body["messages"][0] == {"role": "system", "content": "Be {brief}."}


def test_equal_prompts_are_asked_once_and_paid_in_one_row(openai_server, loaded):
    model = loaded(prompt_price=2.0, completion_price=8.0)
    first = model.predict(TEXTS + TEXTS)
    again = loaded(prompt_price=2.0, completion_price=8.0).predict(TEXTS)  # as Spark loads it for each task
    assert len(openai_server.seen) == len(TEXTS)
    assert first["prompt_tokens"].sum() == 3 * len(TEXTS)
    assert first["completion_tokens"].sum() == 5 * len(TEXTS)
    assert first["cost"].sum() == pytest.approx(len(TEXTS) * (3 * 2 + 5 * 8) / 1e6)
    assert again["cost"].sum() == 0
    assert again["answer"].tolist() == first["answer"].tolist()[: len(TEXTS)]
    assert model.get_raw_model().spent().tokens == 8 * len(TEXTS)


def test_without_memory_each_call_asks_anew(openai_server, loaded):
    model = loaded(remember=0)
    for _ in range(2):
        model.predict(["a", "a"])
    assert len(openai_server.seen) == 2


def test_params_of_a_call_change_the_request(openai_server, loaded):
    model = loaded(stop=("END",), top_p=0.5, extra='{"reasoning_effort": "low"}')
    model.predict(["a"])
    model.predict(["a"], params={"temperature": 0.7, "max_new_tokens": 5, "stop": ["x", "y"], "seed": 3})
    first, second = (each.body for each in openai_server.seen)
    assert (first["temperature"], first["max_tokens"], first["stop"], first["top_p"]) == (0.0, 256, ["END"], 0.5)
    assert "seed" not in first and first["reasoning_effort"] == "low"
    assert (second["temperature"], second["max_tokens"], second["stop"], second["seed"]) == (0.7, 5, ["x", "y"], 3)


# structured answers


def test_a_schema_gives_typed_columns(openai_server, loaded):
    openai_server.answer = lambda prompt: json.dumps(GOOD)
    table = loaded(schema=json.dumps(SCHEMA)).predict(["a"])
    row = table.iloc[0]
    assert (row["label"], row["stars"], row["sure"], row["spam"]) == ("sea", 3, 0.5, False)
    assert (row["words"], json.loads(row["more"])) == (["a", "b"], {"x": [1]})
    [seen] = openai_server.seen
    assert seen.body["response_format"]["json_schema"]["strict"] is True
    assert seen.body["response_format"]["json_schema"]["schema"] == SCHEMA


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("no json", "Invalid JSON"),
        (json.dumps(GOOD | {"label": "sky"}), "label: "),
        (json.dumps(GOOD | {"stars": "3"}), "stars: "),
        (json.dumps({key: value for key, value in GOOD.items() if key != "sure"}), "sure: "),
        (json.dumps(GOOD | {"new": 1}), "new: "),
    ],
)
def test_an_answer_beside_the_schema_is_the_error_of_its_row(openai_server, loaded, answer, told):
    openai_server.answer = lambda prompt: answer if prompt.endswith("bad") else f"```json\n{json.dumps(GOOD)}\n```"
    table = loaded(schema=json.dumps(SCHEMA)).predict(["good", "bad"])
    assert table["error"].isna().tolist() == [True, False]
    assert told in table["error"][1]
    assert table["label"].isna().tolist() == table["stars"].isna().tolist() == [False, True]
    assert table["completion_tokens"][1] > 0  # it was paid all the same


# faults


@pytest.mark.parametrize(
    "fault",
    [
        *({"status": 429, "headers": {"Retry-After": "0.2"}}, {"status": 500}, {"close": True}, {"hang": 1.0}),
        *({"body": '{"half'}, {"body": '{"choices": []}'}),
    ],
    ids=str,
)
def test_a_passing_fault_costs_no_row(openai_server, loaded, fault):
    openai_server.fail(**fault)
    table = loaded(timeout=0.5).predict(TEXTS)
    assert table["error"].isna().all()
    assert len(openai_server.seen) == len(TEXTS) + 1


def test_retry_after_is_waited_for(openai_server, loaded):
    openai_server.fail(status=429, headers={"Retry-After": "1.2"})
    loaded().predict(["a"])
    assert openai_server.seen[1].at - openai_server.seen[0].at >= 1.2


LASTING = {
    "500": {"status": 500},
    "400": {"status": 400},
    "hang": {"hang": 1.0},
    "closed": {"close": True},
    "half": {"body": '{"half'},
    "empty": {"body": '{"choices": []}'},
}


@pytest.mark.parametrize("fault", LASTING)
def test_a_row_that_fails_for_good_costs_one_row(openai_server, loaded, fault):
    from tests.endpoints import Fault

    openai_server.fault = lambda prompt: Fault(**LASTING[fault]) if prompt.endswith("text 3") else None
    table = loaded(timeout=0.5).predict(TEXTS)
    assert table["error"].notna().tolist() == [text == "text 3" for text in TEXTS]
    assert table["answer"].isna().tolist() == [text == "text 3" for text in TEXTS]
    openai_server.fault = lambda prompt: None
    assert loaded(timeout=0.5).predict(TEXTS)["error"].isna().all()  # an error is not remembered
    assert Counter(openai_server.prompts)["Say: text 1"] == 1


def test_a_null_is_not_asked(openai_server, loaded):
    table = loaded().predict(pd.DataFrame({"body": ["a", None, ""]}))
    assert table["error"].tolist()[1] == "the column text is null"
    assert table["answer"].isna().tolist() == [False, True, False]
    assert len(openai_server.seen) == 2


def test_a_refused_key_ends_the_asking_and_every_row_says_why(openai_server, loaded):
    openai_server.fail(99, status=401, body=json.dumps({"error": {"message": f"bad {openai_server.key}"}}))
    table = loaded(concurrency=1).predict(TEXTS)
    assert len(openai_server.seen) == 1
    assert table["error"].str.contains("does not accept the key").all()
    assert table["error"][7].startswith("not asked: ")


def test_a_dead_endpoint_is_given_up(openai_server, loaded):
    model = loaded(max_retries=0, concurrency=1)
    openai_server.close()
    table = model.predict([f"text {i}" for i in range(50)])
    assert table["error"].str.contains("cannot be reached").all()
    assert (table["error"].str.startswith("not asked: ")).sum() == 45


@pytest.mark.parametrize(
    "budget",
    [{"max_requests": 3}, {"max_tokens": 900}, {"max_cost": 0.0009, "prompt_price": 1.0, "completion_price": 1.0}],
    ids=lambda budget: next(iter(budget)),
)
def test_a_budget_is_the_processes(openai_server, loaded, budget):
    openai_server.answer = lambda prompt: "word " * 250
    first = loaded(concurrency=1, **budget).predict(TEXTS)
    assert first["error"].isna().sum() == 3
    assert first["error"].dropna().str.match(f"not asked: {next(iter(budget))}=.* the budget is used up").all()
    assert loaded(concurrency=1, **budget).predict(["new"])["answer"].isna().all()
    assert len(openai_server.seen) == 3


# settings


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"prompt": "no place"}, "^prompt='no place': it names no column"),
        ({"key_variable": "sk-123-456"}, "^key_variable: give the name"),
        ({"schema": "{"}, "^schema: no JSON"),
        ({"schema": '{"type": "object", "properties": {"error": {"type": "string"}}}'}, "are columns of ours"),
        ({"schema": '{"type": "array"}'}, "^schema: it must be"),
        ({"schema": '{"type": "object", "properties": [1]}'}, "^schema: it must be"),
        ({"schema": '{"type": "object", "properties": {"a": 5}}'}, "^schema: the property 'a' is no JSON schema"),
        ({"schema": '{"type": "object", "properties": {"a": {"enum": []}}}'}, "^schema: the property 'a' is no"),
        ({"schema": '{"type": "object", "properties": {"a": {"enum": 5}}}'}, "^schema: the property 'a' is no"),
        ({"schema": '{"type": "object", "properties": {"a": {"items": [1]}}}'}, "^schema: the property 'a' is no"),
        ({"schema": '{"type": "object", "properties": {"a": {}}, "required": 5}'}, "^schema: required is a list"),
        ({"extra": '{"stream": true, "n": 2}'}, "^extra: n, stream cannot be set there"),
        ({"extra": "[1]"}, "^extra: give a JSON object"),
        ({"max_cost": 1.0}, "^max_cost=1: give prompt_price"),
        ({"prompt_price": 1.0}, "belong together"),
    ],
)
def test_a_mistake_names_its_option(openai_server, options, told):
    with pytest.raises(ConfigError, match=told) as raised:
        settings_of(openai_server, **options)
    assert "sk-123" not in str(raised.value)


def test_the_address_of_the_environment_is_kept_with_the_model(openai_server, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.url)
    openai_chat.save_model(ChatSettings("m", "{text}"), tmp_path / "saved")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://another.host/v1")
    assert openai_chat.load_model(str(tmp_path / "saved")).settings.url == openai_server.url


def test_the_worker_needs_neither_torch_nor_transformers(openai_server, tmp_path, imported_by):
    openai_chat.save_model(settings_of(openai_server), tmp_path / "saved")
    modules = imported_by(tmp_path / "saved", TEXTS[:2])
    assert not {"torch", "transformers"} & modules


# the key


def test_without_a_key_nothing_is_asked(openai_server, loaded, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="^key_variable=OPENAI_API_KEY: no such variable is set"):
        loaded().predict(["a"])
    assert not openai_server.seen


def test_a_new_key_is_used_by_the_next_call(openai_server, loaded, monkeypatch):
    model = loaded(key_variable="MY_KEY")
    for key in ("first-key", "second-key"):
        monkeypatch.setenv("MY_KEY", key)
        model.predict([key])
    assert [each.headers["authorization"] for each in openai_server.seen] == ["Bearer first-key", "Bearer second-key"]


def test_a_key_among_the_options_is_refused(openai_server, tmp_path):
    with pytest.raises(ConfigError, match="^the key in OPENAI_API_KEY stands in an option") as raised:
        openai_chat.save_model(settings_of(openai_server, system=f"key {openai_server.key}"), tmp_path / "saved")
    assert openai_server.key not in str(raised.value)


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
def test_the_key_is_in_no_byte_that_is_stored_and_no_line_that_is_logged(openai_server, store, caplog, capfd, status):
    caplog.set_level(logging.DEBUG)
    if status != 200:
        openai_server.fail(999, status=status, body=json.dumps({"error": {"message": f"bad {openai_server.key}"}}))
    said = ""
    with mlflow.start_run():
        info = openai_chat.log_model(settings_of(openai_server, max_retries=0, trace=True))
        try:
            said = mlflow.pyfunc.load_model(info.model_uri).predict(TEXTS).to_json()
        except LLMOpsError as error:
            said = "".join(traceback.format_exception(error))
    mlflow.openai.autolog(disable=True)
    mlflow.flush_trace_async_logging()
    assert openai_server.seen[0].headers["authorization"] == f"Bearer {openai_server.key}"
    assert mlflow.search_traces(return_type="list")
    files = [path for path in Path(store).rglob("*") if path.is_file()]
    assert any(path.name == "settings.json" for path in files) and any(path.suffix == ".db" for path in files)
    assert not [path for path in files if openai_server.key.encode() in path.read_bytes()]
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".bin", ".pt")]
    captured = capfd.readouterr()
    lines = [said, captured.out, captured.err, *(record.getMessage() for record in caplog.records)]
    assert not [line for line in lines if openai_server.key in line]
