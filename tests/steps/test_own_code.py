"""A model whose class came with it: run only where that was asked for, then proven and registered like any other."""

import json
import shutil

import mlflow
import pytest
import torch
from click.testing import CliRunner
from mlflow.tracking import MlflowClient
from transformers import AutoTokenizer

from mlflow_llmops.cli import main
from mlflow_llmops.flavors import text
from mlflow_llmops.models.load import load

CODE = """
from transformers import BertConfig, BertForSequenceClassification


class TurnedConfig(BertConfig):
    model_type = "turned"


class TurnedForSequenceClassification(BertForSequenceClassification):
    config_class = TurnedConfig

    def forward(self, *args, **kwargs):
        found = super().forward(*args, **kwargs)
        found.logits = found.logits.flip(-1)
        return found
"""


@pytest.fixture
def turned(tiny_folder, tmp_path, monkeypatch):
    """The trained tiny model as one that answers with the labels the other way round, by code beside its weights."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "turned"
    shutil.copytree(tiny_folder, folder)
    (folder / "turned.py").write_text(CODE)
    described = json.loads((folder / "config.json").read_text())
    described["auto_map"] = {
        "AutoConfig": "turned.TurnedConfig",
        "AutoModelForSequenceClassification": "turned.TurnedForSequenceClassification",
    }
    described |= {"model_type": "turned", "architectures": ["TurnedForSequenceClassification"]}
    (folder / "config.json").write_text(json.dumps(described))
    return folder


def test_a_version_of_it_answers_as_its_code_says(turned, store, tiny_model, tiny_texts):
    own = load(str(turned), trust_remote_code=True)
    with mlflow.start_run():
        info = text.log_model(own, "model")
    folder = mlflow.artifacts.download_artifacts(info.model_uri)
    shutil.rmtree(turned)
    said = mlflow.pyfunc.load_model(info.model_uri).predict(list(tiny_texts.test.texts))
    ids = AutoTokenizer.from_pretrained(f"{folder}/components/tokenizer")(tiny_texts.test.texts[0], return_tensors="pt")
    with torch.inference_mode():
        stock = tiny_model.network(**ids).logits[0]
    assert said["label"][0] == tiny_model.labels[stock.flip(-1).argmax()]
    assert {
        type(each).__name__
        for each in mlflow.transformers.load_model(info.model_uri, return_type="components").values()
    } >= {"TurnedForSequenceClassification"}


@pytest.mark.slow
def test_it_goes_through_every_step_of_who_asked_for_it_and_through_none_else(turned, store, tiny_data):
    def run(verb, *arguments):
        return CliRunner().invoke(main, [verb, *map(str, arguments)])

    trained = [
        "--model",
        turned,
        "--data",
        tiny_data,
        "--epochs",
        "0.05",
        "--measure-seconds",
        "0.3",
        "--register-as",
        "own",
    ]
    refused = run("finetune", *trained)
    assert (refused.exit_code, "only with trust_remote_code=true" in refused.output) == (2, True), refused.output
    assert MlflowClient().search_registered_models() == []
    result = run("finetune", *trained, "--trust-remote-code", "true")
    assert result.exit_code == 0, result.output
    mlflow.register_model(MlflowClient().get_model_version("own", "1").source, "own")
    compared = ["--name", "own", "--versions", "1,2", "--data", tiny_data, "--measure-seconds", "0.3"]
    refused = run("compare", *compared)
    assert (refused.exit_code, "only with trust_remote_code=true" in refused.output) == (2, True), refused.output
    result = run("compare", *compared, "--trust-remote-code", "true")
    assert result.exit_code == 0, result.output


def test_no_chain_reads_it_as_another_network(turned, store, openai_server):
    with mlflow.start_run():
        uri = text.log_model(load(str(turned), trust_remote_code=True), "model").model_uri
    (store / "docs").mkdir()
    (store / "docs" / "a.txt").write_text("a boat")
    given = ["register_chain", "--chain", "rag", "--model", "openai:m", "--base-url", openai_server.url]
    for encoder in (str(turned), uri):
        result = CliRunner().invoke(main, [*given, "--documents", "docs", "--embeddings", encoder])
        assert result.exit_code == 2
        assert f"embeddings={encoder} brings Python code of its own" in " ".join(result.output.split())
