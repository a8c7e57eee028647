"""Chains in MLflow's langchain flavor: what they ask, where answers come from, and what a bad row costs."""

import json
import logging
from pathlib import Path

import mlflow
import mlflow.langchain
import numpy as np
import pandas as pd
import pytest

from mlflow_llmops.errors import ConfigError, MissingExtra
from mlflow_llmops.flavors import _chains, langchain_chain, openai_chat, text
from mlflow_llmops.flavors._chain_settings import ENCODER, INDEX, WRITER, ChainSettings
from mlflow_llmops.flavors._chat_settings import ChatSettings
from mlflow_llmops.models.embedder import save_embedder
from tests.endpoints import Fault

DOCUMENTS = [
    ("sea.md", "The boat left the harbour. " * 3),
    ("kitchen/oven.txt", "Butter and flour go into the oven. " * 3),
    ("weather.rst", "Rain and thunder came with the storm. " * 3),
]


def endpoint_of(server, **options) -> ChatSettings:
    return ChatSettings("m", "{text}", base_url=server.url, **{"timeout": 5.0, "max_retries": 1, **options})


@pytest.fixture
def saved(tmp_path):
    """Where a chain is saved as an MLflow model, from its settings."""

    def of(settings: ChainSettings, prepare=lambda folder: None) -> Path:
        folder = tmp_path / "chain"
        folder.mkdir()
        settings.write(folder)
        prepare(folder)
        langchain_chain.save_model(folder, tmp_path / "saved")
        for path in folder.rglob("*"):  # what is saved stands by itself
            if path.is_file():
                path.unlink()
        return tmp_path / "saved"

    return of


def test_english_to_french_is_a_prompt_a_model_and_a_parser(openai_server, saved):
    openai_server.answer = lambda prompt: "bonjour"
    path = saved(ChainSettings("translate", endpoint_of(openai_server), system='Be {"brief"}.'))
    for given in (["hello", "hello"], pd.DataFrame({"any": ["hello"]}), pd.Series(["hello"])):
        assert set(mlflow.pyfunc.load_model(str(path)).predict(given)["answer"]) == {"bonjour"}
    assert len(openai_server.seen) == 3  # equal rows are asked once
    body = openai_server.seen[0].body
    assert body["messages"][0] == {"role": "system", "content": 'Be {"brief"}.'}
    assert body["messages"][1]["content"].endswith("English to French. Answer with the translation alone.\n\nhello")
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.0, 256)
    assert mlflow.langchain.load_model(str(path)).invoke({"text": "hello"}) == "bonjour"
    assert not [each for each in path.rglob("*") if each.suffix in (".pkl", ".pickle")]


def with_index(settings, documents=DOCUMENTS):
    def prepare(folder: Path) -> None:
        _chains.index(documents, _chains.embeddings_of(settings, folder), 60, 10, folder / INDEX)

    return prepare


def test_answers_come_with_the_sources_that_the_model_was_shown(openai_server, saved):
    settings = ChainSettings("rag", endpoint_of(openai_server), embeddings=endpoint_of(openai_server), top_k=2)
    path = saved(settings, with_index(settings))
    openai_server.seen.clear()
    openai_server.answer = lambda prompt: "from the sea" if "harbour" in prompt else "from elsewhere"
    table = mlflow.pyfunc.load_model(str(path)).predict(["Which boat left the harbour?", "What goes into the oven?"])
    assert table["answer"].tolist() == ["from the sea", "from elsewhere"]
    assert table["sources"].tolist() == [["sea.md"], ["kitchen/oven.txt"]]
    assert table["error"].isna().all()
    [sea] = [each.prompt for each in openai_server.seen if "Question: Which boat" in each.prompt]
    assert "[sea.md] The boat left the harbour." in sea and "oven" not in sea
    assert np.load(path / "chain" / INDEX / "vectors.npy", allow_pickle=False).shape[1] == 64


def test_an_encoder_of_ours_finds_as_the_mean_of_its_states_says(openai_server, tiny_model, saved):
    import torch

    settings = ChainSettings("rag", endpoint_of(openai_server), top_k=1)

    def prepare(folder: Path) -> None:
        save_embedder(tiny_model, folder / ENCODER)
        with_index(settings)(folder)

    path = saved(settings, prepare)
    embed = _chains.MeanPooled(path / "chain" / ENCODER).embed_documents
    texts = ["the boat", "butter and flour and oven and salt", "the boat"]
    for one, vector in zip(texts, embed(texts), strict=True):
        tokens = tiny_model.tokenizer(one, return_tensors="pt")
        with torch.inference_mode():
            mean = tiny_model.network.base_model(**tokens).last_hidden_state[0].mean(0)
        assert vector == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)
    openai_server.answer = lambda prompt: prompt
    table = mlflow.pyfunc.load_model(str(path)).predict(["the oven with butter", "storm and rain and thunder"])
    assert table["sources"].tolist() == [["kitchen/oven.txt"], ["weather.rst"]]


@pytest.mark.parametrize("kind", ["torch", "openvino"])
def test_a_version_of_ours_answers_in_a_chain_as_it_does_alone(tiny_decoder, exported_decoder, tmp_path, saved, kind):
    from mlflow_llmops.flavors import exported_text

    def prepare(folder: Path) -> None:
        if kind == "torch":
            text.save_model(tiny_decoder, folder / WRITER)
        else:
            exported_text.save_model(exported_decoder(kind).folder, folder / WRITER)

    path = saved(ChainSettings("translate", prompt="{start} the", max_new_tokens=5), prepare)
    alone = mlflow.pyfunc.load_model(str(path / "chain" / WRITER))
    table = mlflow.pyfunc.load_model(str(path)).predict(["the boat and", "an oven with"])
    expected = alone.predict(["the boat and the", "an oven with the"], params={"max_new_tokens": 5})
    assert table["answer"].tolist() == expected
    assert any(expected)


LASTING = {
    "429": {"status": 429},
    "500": {"status": 500},
    "hang": {"hang": 1.0},
    "closed": {"close": True},
    "half": {"body": '{"half'},
    "empty": {"body": '{"choices": []}'},
}


@pytest.mark.parametrize("fault", LASTING)
def test_a_row_that_fails_costs_itself(openai_server, saved, fault):
    path = saved(ChainSettings("translate", endpoint_of(openai_server, timeout=0.5, max_retries=0), prompt="{text}"))
    openai_server.fault = lambda prompt: Fault(**LASTING[fault]) if prompt == "bad" else None
    table = mlflow.pyfunc.load_model(str(path)).predict(pd.DataFrame({"x": ["a", "bad", None, "b"]}))
    assert table["answer"].isna().tolist() == [False, True, True, False]
    assert table["error"].isna().tolist() == [True, False, False, True]
    assert table["error"][2] == "the column text is null"


def test_a_passing_fault_costs_nothing(openai_server, saved):
    openai_server.fail(status=429, headers={"Retry-After": "0.3"})
    path = saved(ChainSettings("translate", endpoint_of(openai_server)))
    assert mlflow.pyfunc.load_model(str(path)).predict(["a"])["error"].isna().all()
    assert openai_server.seen[1].at - openai_server.seen[0].at >= 0.3


def test_the_key_is_read_when_it_is_asked(openai_server, saved, monkeypatch):
    path = saved(ChainSettings("translate", endpoint_of(openai_server, key_variable="MY_KEY")))
    model = mlflow.pyfunc.load_model(str(path))
    with pytest.raises(ConfigError, match="^key_variable=MY_KEY: no such variable is set"):
        model.predict(["a"])
    for key in ("first-key", "second-key"):
        monkeypatch.setenv("MY_KEY", key)
        model.predict(["a"])
    assert [each.headers["authorization"] for each in openai_server.seen] == ["Bearer first-key", "Bearer second-key"]


@pytest.mark.parametrize("status", [200, 401, 500])
def test_the_key_is_in_no_byte_that_is_stored_and_no_line_that_is_logged(openai_server, store, caplog, capfd, status):
    caplog.set_level(logging.DEBUG)
    settings = ChainSettings("translate", endpoint_of(openai_server, max_retries=0), trace=True)
    Path("chain").mkdir()
    settings.write(Path("chain"))
    if status != 200:
        openai_server.fail(99, status=status, body=json.dumps({"error": {"message": f"bad {openai_server.key}"}}))
    with mlflow.start_run():
        info = langchain_chain.log_model(Path("chain"))
        said = mlflow.pyfunc.load_model(info.model_uri).predict(["a", "b"]).to_json()
    mlflow.langchain.autolog(disable=True)
    mlflow.flush_trace_async_logging()
    assert openai_server.seen[0].headers["authorization"] == f"Bearer {openai_server.key}"
    assert mlflow.search_traces(return_type="list")
    files = [path for path in store.rglob("*") if path.is_file()]
    assert not [path for path in files if openai_server.key.encode() in path.read_bytes()]
    captured = capfd.readouterr()
    lines = [said, captured.out, captured.err, *(record.getMessage() for record in caplog.records)]
    assert not [line for line in lines if openai_server.key in line]


def test_without_langchain_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(langchain_chain, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="needs langchain: pip install 'mlflow-llmops.langchain"):
        langchain_chain.check_extra()
    assert openai_chat  # the other flavor does without it
