"""Every flavor keeps an input that its own model answers, in the form that a server takes."""

import json
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.models import Model
from mlflow.pyfunc.scoring_server import infer_and_parse_data

from mlflow_llmops.flavors import exported_text, langchain_chain, openai_chat, text
from mlflow_llmops.flavors._chain_settings import ChainSettings
from mlflow_llmops.flavors._chat_settings import ChatSettings


@pytest.fixture
def logged(openai_server, store, tiny_model, tiny_decoder, tiny_exported):
    def chain(prompt):
        folder = store / "chain"
        folder.mkdir()
        ChainSettings("translate", asked, prompt=prompt).write(folder)
        return langchain_chain.log_model(folder)

    asked = ChatSettings("m", "{text}", base_url=openai_server.url)
    two = ChatSettings("m", "{question}: {context}", base_url=openai_server.url)
    given = pd.DataFrame({"question": ["why"], "context": ["so"]})
    return {
        "text": lambda: text.log_model(tiny_model, "model"),
        "text of a causal model": lambda: text.log_model(tiny_decoder, "model"),
        "exported_text": lambda: exported_text.log_model(tiny_exported.folder),
        "openai_chat": lambda: openai_chat.log_model(asked),
        "openai_chat of two columns": lambda: openai_chat.log_model(two, input_example=given),
        "langchain_chain": lambda: chain("{start}"),
        "langchain_chain of two columns": lambda: chain("{start} {end}"),
    }


CASES = ("text", "text of a causal model", "exported_text", "openai_chat", "openai_chat of two columns")
CASES += ("langchain_chain", "langchain_chain of two columns")


@pytest.mark.parametrize("case", CASES)
def test_the_example_is_stored_shown_and_answered(logged, openai_server, case, caplog):
    with mlflow.start_run():
        info = logged[case]()
    assert not openai_server.seen, "to log a model asks nobody"
    assert "Failed to validate serving input" not in caplog.text
    folder = Path(mlflow.artifacts.download_artifacts(info.model_uri))
    described = Model.load(str(folder))
    assert info.saved_input_example_info
    assert described.saved_input_example_info == info.saved_input_example_info
    served = json.loads(described.get_serving_input(str(folder)))
    loaded = mlflow.pyfunc.load_model(info.model_uri)
    assert len(loaded.predict(described.load_input_example(str(folder)))) == 1
    parsed = infer_and_parse_data(served, described.signature.inputs)
    assert len(loaded.predict(parsed)) == 1
    if "openai_chat of two" in case:
        assert {each.prompt for each in openai_server.seen} == {"why: so"}
