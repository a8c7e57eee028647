"""What an endpoint is called and what it is sent, before anything is asked."""

import pytest

from mlflow_llmops.endpoint.asking import Spending
from mlflow_llmops.endpoint.client import OPENAI_URL, Endpoint, checked_url
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods.distill._asking import ask


def test_openai_gets_the_name_of_the_limit_that_its_new_models_want():
    assert "max_completion_tokens" in Endpoint("m", OPENAI_URL).request("p")
    assert "max_completion_tokens" in Endpoint("m", OPENAI_URL + "/").request("p")


@pytest.mark.parametrize("url", ["http://me:word@host/v1", "https://word@host/v1", "https://host/v1?key=word"])
def test_a_secret_in_the_address_is_refused_and_not_shown(url):
    with pytest.raises(ConfigError, match="^base_url: it holds") as raised:
        checked_url(url)
    assert "word," not in str(raised.value).replace("password,", "")
    assert url not in str(raised.value)


def test_the_environments_address_is_used_where_none_is_given(openai_server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.url)
    assert ask(Endpoint("m"), ["p"], 1, Spending())[0].answer == "answer to p"
    with pytest.raises(ConfigError, match="^base_url='ftp://x': write http"):
        checked_url("ftp://x")
