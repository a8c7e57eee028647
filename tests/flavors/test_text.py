"""Saving a torch model needs no network, and tells nobody where it came from on this machine."""

import shutil
from importlib.metadata import version

import httpx
import huggingface_hub.constants
import mlflow
import pandas as pd
import pytest
import yaml

from mlflow_llmops.flavors import text
from mlflow_llmops.flavors.by_kind import save_text_model
from mlflow_llmops.methods.quantize.torchao import TorchAo
from mlflow_llmops.models.load import load


@pytest.fixture
def asked(monkeypatch):
    """What was asked of any server by the hub's client."""
    requests = []

    def refuse(client, request, **kwargs):
        requests.append(str(request.url))
        raise RuntimeError("no network in this test")

    monkeypatch.setattr(httpx.Client, "send", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return requests


@pytest.fixture(params=["my-encoder", "some/where/my-encoder"])
def loaded(request, tmp_path, monkeypatch, tiny_folder):
    """A model by a relative path: the first one could be an id of the hub as well."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_folder, request.param)
    return load(request.param, "text-classification")


def test_saving_asks_the_hub_nothing_and_keeps_no_path(loaded, tmp_path, asked):
    text.save_model(loaded, tmp_path / "saved")
    assert asked == []
    flavor = yaml.safe_load((tmp_path / "saved" / "MLmodel").read_text())["flavors"]["transformers"]
    assert flavor["source_model_name"] == ""
    for path in (tmp_path / "saved").rglob("*"):
        assert path.is_dir() or b"my-encoder" not in path.read_bytes(), path


def test_a_model_that_torchao_packed_asks_for_torchao(tiny_model, tiny_texts, tmp_path):
    packed = TorchAo().apply(tiny_model, tiny_texts, tmp_path / "work")
    for name, model in {"packed": packed, "plain": tiny_model}.items():
        text.save_model(model, tmp_path / name)
        asked_for = (tmp_path / name / "requirements.txt").read_text()
        assert (f"torchao=={version('torchao')}" in asked_for.splitlines()) == (name == "packed")


LITERALS = ["42", "None", "['a', 'b']", "{'text': 'x'}", "-" * 5000 + "1", "word " * 2000]


@pytest.fixture(scope="module")
def pair(tiny_model, tiny_exported, tmp_path_factory):
    """The same network as two versions, one in torch and one exported."""
    folder = tmp_path_factory.mktemp("pair")
    save_text_model(tiny_model, folder / "torch")
    save_text_model(tiny_exported, folder / "exported")
    return [mlflow.pyfunc.load_model(str(folder / name)) for name in ("torch", "exported")]


@pytest.mark.parametrize(
    "given",
    [
        LITERALS,
        [*LITERALS, None, "oven and butter"],
        pd.DataFrame({"any name": ["oven and butter", "42"]}),
        pd.Series(["the tide came"], name="q"),
        "the tide came",
    ],
)
def test_a_torch_version_answers_whatever_an_exported_one_does(pair, given):
    """MLflow's own pipeline evaluates texts that look like Python, and fails on nulls and on long ones."""
    torch_answers, exported_answers = (version.predict(given) for version in pair)
    assert torch_answers["label"].tolist() == exported_answers["label"].tolist()
    assert torch_answers["score"].to_numpy() == pytest.approx(
        exported_answers["score"].to_numpy(), abs=1e-4, nan_ok=True
    )
    assert list(torch_answers.columns) == ["label", "score"]


def test_the_model_in_memory_keeps_its_name_and_the_saved_one_its_answers(loaded, tmp_path):
    name = loaded.network.name_or_path
    text.save_model(loaded, tmp_path / "saved")
    assert name and loaded.network.name_or_path == loaded.network.config.name_or_path == name
    before = loaded.network.state_dict()
    after = mlflow.transformers.load_model(str(tmp_path / "saved")).model.state_dict()
    assert before.keys() == after.keys()
    assert all((before[key] == after[key].to(before[key].device)).all() for key in before)
