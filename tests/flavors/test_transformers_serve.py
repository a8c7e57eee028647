"""Both flavors against a server that is not ours: `transformers serve` with a tiny model, over HTTP."""

from pathlib import Path

import pytest

from mlflow_llmops.flavors import langchain_chain
from mlflow_llmops.flavors._chain_settings import ChainSettings
from mlflow_llmops.flavors._chat import ChatPredictor
from mlflow_llmops.flavors._chat_settings import ChatSettings
from tests.serving_process import free_port, process

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tiny_decoder, tmp_path_factory):
    """The address of the server, and the folder that it calls its model."""
    folder = tmp_path_factory.mktemp("served")
    tiny_decoder.save(folder / "model")
    # as our own generation begins a text
    template = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    (folder / "model" / "chat_template.jinja").write_text(template)
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("OPENAI_API_KEY", "any")
        command = ["transformers", "serve", str(folder / "model"), "--port", str(port), "--device", "cpu"]
        with process(command, f"http://127.0.0.1:{port}/health", folder / "log", 120):
            yield f"http://127.0.0.1:{port}/v1", folder / "model"


def test_it_writes_what_the_network_in_memory_writes(served, tiny_decoder, tmp_path: Path):
    from mlflow_llmops.measure.generation import complete

    url, folder = served
    prompts = ["the boat and the sail near", "an oven with butter and"]
    settings = ChatSettings(str(folder), "{text}", base_url=url, max_new_tokens=6)
    table = ChatPredictor(settings).predict(prompts)
    expected = [each.text for each in complete(tiny_decoder, prompts, new_tokens=6)]
    assert table["error"].isna().all(), table["error"].tolist()
    assert table["answer"].str.strip().tolist() == [each.strip() for each in expected]
    assert (table["completion_tokens"] > 0).all()
    ChainSettings("translate", settings, prompt="{text}").write(tmp_path)
    assert langchain_chain.ChainPredictor(tmp_path).predict(prompts)["answer"].tolist() == table["answer"].tolist()
