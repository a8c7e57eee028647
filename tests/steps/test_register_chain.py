"""`register_chain` as a user runs it: self-contained, proven by a fresh process, served and scored."""

import shutil
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.cli import main
from mlflow_llmops.flavors import exported_text, text
from mlflow_llmops.flavors.by_kind import log_text_model
from tests.serving_process import served


@pytest.fixture
def documents(store):
    folder = store / "documents"
    (folder / "kitchen").mkdir(parents=True)
    (folder / "sea.md").write_text("The boat left the harbour with fish and rope. The captain saw an island.")
    (folder / "kitchen" / "oven.txt").write_text("Butter and flour go into the oven with sugar and salt.")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return folder


def register(*arguments):
    return CliRunner().invoke(main, ["register_chain", "--register-as", "chained", *map(str, arguments)])


@pytest.mark.slow
def test_answers_from_documents_are_registered_and_served_with_their_sources(openai_server, documents, store):
    openai_server.answer = lambda prompt: "the sea" if "island" in prompt else "elsewhere"
    given = ["--chain", "rag", "--model", "openai:m", "--base-url", openai_server.url, "--documents", documents]
    result = register(*given, "--embeddings", "openai:e", "--top-k", 1)
    assert result.exit_code == 0, result.output
    assert "2 passages of" in result.output
    [version] = MlflowClient().search_model_versions("name = 'chained'")
    assert version.tags[names.RELOADED] == "same outputs"
    shutil.rmtree(documents)
    sea, oven = served("models:/chained/1", {"inputs": ["Which boat left the harbour?", "What goes into the oven?"]})
    assert sea == {"answer": "the sea", "sources": ["sea.md"], "error": None}
    assert oven == {"answer": "elsewhere", "sources": ["kitchen/oven.txt"], "error": None}
    files = [path for path in store.rglob("*") if path.is_file()]
    assert not [path for path in files if openai_server.key.encode() in path.read_bytes()]
    assert not [path for path in files if path.suffix in (".pkl", ".pickle")]


@pytest.mark.slow
def test_a_chain_of_our_own_versions_needs_neither_registry_nor_network(
    store, documents, tiny_model, exported_decoder, monkeypatch
):
    with mlflow.start_run():
        writer = exported_text.log_model(exported_decoder("openvino").folder).model_uri
        encoder = text.log_model(tiny_model, "model").model_uri
    result = register("--chain", "rag", "--model", writer, "--documents", documents, "--embeddings", encoder,
                      "--max-new-tokens", 6, "--passage-size", 60, "--passage-overlap", 0)  # fmt: skip
    assert result.exit_code == 0, result.output
    [version] = MlflowClient().search_model_versions("name = 'chained'")
    assert version.tags[names.SOURCE_MODEL] == writer
    assert version.tags[names.RELOADED] == "same outputs"
    folder = Path(mlflow.artifacts.download_artifacts("models:/chained/1"))
    copied = shutil.copytree(folder, store / "elsewhere")
    mlflow.set_tracking_uri(f"sqlite:///{store / 'empty.db'}")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    table = mlflow.pyfunc.load_model(str(copied)).predict(["the boat with fish"])
    assert table["error"].isna().all()
    assert table["sources"][0]


CASES = {
    "no documents": (["--chain", "rag", "--model", "openai:m"], "chain=rag needs documents"),
    "unknown folder": (
        ["--chain", "rag", "--model", "openai:m", "--documents", "nowhere", "--embeddings", "openai:e"],
        "documents=nowhere: there is no such folder",
    ),
    "model is no reference": (["--model", "gpt"], "model=gpt: give openai:MODEL, or a version"),
    "not registered": (["--model", "models:/nobody/1"], "model=models:/nobody/1 is not in the tracking store"),
    "prompt without a place": (["--model", "openai:m", "--prompt", "x"], "prompt='x': it names no column"),
    "prompt of rag": (
        ["--model", "openai:m", "--chain", "rag", "--documents", "d", "--embeddings", "e", "--prompt", "{question}"],
        "prompt: for chain=rag write {context}",
    ),
    "chain": (["--model", "openai:m", "--chain", "agent"], "chain='agent': "),
    "documents for nobody": (["--model", "openai:m", "--documents", "d"], "chain=translate reads no documents"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_and_registers_nothing(openai_server, store, case):
    arguments, told = CASES[case]
    result = register(*arguments, "--base-url", openai_server.url)
    assert result.exit_code == 2, result.output
    assert told in result.output
    assert MlflowClient().search_registered_models() == []


def test_an_endpoint_without_the_embeddings_is_named(openai_server, documents):
    openai_server.fail(99, status=404)
    given = ["--chain", "rag", "--model", "openai:m", "--base-url", openai_server.url, "--documents", documents]
    result = register(*given, "--embeddings", "openai:e")
    assert result.exit_code == 2
    assert "endpoint_model=e: " in result.output and "knows no such model" in result.output


def test_a_classifier_writes_no_text(store, tiny_model):
    with mlflow.start_run():
        uri = text.log_model(tiny_model, "model").model_uri
    result = register("--model", uri)
    assert result.exit_code == 2
    assert "writes no text; give a version of a causal model" in result.output


@pytest.fixture
def chain_of_runs(store, tiny_model, tiny_exported):
    """A torch version, a graph made from it and a graph made from that, with the tags that the verbs leave."""

    def logged(model, kind, **tags):
        with mlflow.start_run(tags={names.KIND: kind, **tags}):
            return log_text_model(model)

    torch = logged(tiny_model, "torch")
    mlflow.register_model(torch.model_uri, "mine")
    made = {names.SOURCE_MODEL: "models:/mine@champion", names.SOURCE_MODEL_ID: torch.model_id}
    graph = logged(tiny_exported, "openvino", **made)
    again = {names.SOURCE_MODEL: graph.model_uri, names.SOURCE_MODEL_ID: graph.model_id}
    from_version = made | {names.SOURCE_MODEL: "models:/mine/1"}
    return {
        torch.model_uri: [graph.model_uri, logged(tiny_exported, "openvino", **again).model_uri],
        "models:/mine/1": [logged(tiny_exported, "openvino", **from_version).model_uri],
        "a/folder": [logged(tiny_exported, "openvino", **{names.SOURCE_MODEL: "a/folder"}).model_uri],
        "": [logged(tiny_exported, "openvino").model_uri],
    }


def test_a_graph_cannot_embed_and_the_torch_model_behind_it_is_named(openai_server, documents, chain_of_runs):
    given = ["--chain", "rag", "--model", "openai:m", "--base-url", openai_server.url, "--documents", documents]
    for origin, graphs in chain_of_runs.items():
        for graph in graphs:
            result = register(*given, "--embeddings", graph)
            assert result.exit_code == 2
            said = " ".join(result.output.split())
            assert f"embeddings={graph} is a graph of kind openvino, which gives its answers alone" in said
            assert said.endswith(f"made from: {origin}" if origin else "made from")
    assert not MlflowClient().search_registered_models(filter_string="name = 'chained'")
