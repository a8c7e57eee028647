"""Clients as they are, against a causal version: OpenAI's own, LangChain's, and some that leave."""

import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import mlflow
import pytest
from langchain_openai import ChatOpenAI
from openai import BadRequestError, NotFoundError, OpenAI

from mlflow_llmops.flavors.by_kind import save_text_model
from tests.serving.conftest import serving

PROMPTS = ("the boat and the sail near", "an oven with butter and", "under the old storm")


@pytest.fixture(scope="module")
def model(writing):
    return mlflow.pyfunc.load_model(writing.model)


@pytest.fixture(scope="module")
def client(writing):
    with OpenAI(base_url=f"{writing.url}/v1", api_key="any", max_retries=0) as opened:
        yield opened


def chat(client, prompt, **given):
    said = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(model="writer", messages=said, **{"temperature": 0, "max_tokens": 8, **given})


def test_openais_client_gets_what_the_pyfunc_writes(client, model):
    expected = model.predict(list(PROMPTS), params={"max_new_tokens": 8})
    for prompt, text in zip(PROMPTS, expected, strict=True):
        answer = chat(client, prompt)
        assert answer.choices[0].message.content.strip() == text
        assert answer.choices[0].message.role == "assistant"
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        # the template writes the first token: it must not be there twice
        assert answer.usage.prompt_tokens == len(model.get_raw_model().generator.encode([prompt], 64)[0])
    several = client.completions.create(model="writer", prompt=list(PROMPTS), temperature=0, max_tokens=8)
    assert [each.text.strip() for each in several.choices] == expected
    assert [each.index for each in several.choices] == [0, 1, 2]
    assert several.usage.completion_tokens <= 24


def test_what_ends_an_answer(client):
    for seed in range(50):  # it has learned to end
        whole = chat(client, PROMPTS[0], max_tokens=40, temperature=1.5, seed=seed)
        text, written = whole.choices[0].message.content, whole.usage.completion_tokens
        if whole.choices[0].finish_reason == "stop" and written > 5 and len(set(text.split())) > 3:
            break
    drawn = {"temperature": 1.5, "seed": seed}
    cut = chat(client, PROMPTS[0], max_tokens=written - 2, **drawn)
    assert cut.choices[0].finish_reason == "length" and cut.usage.completion_tokens == written - 2
    assert text.startswith(cut.choices[0].message.content)
    word = text.split()[1]
    stopped = chat(client, PROMPTS[0], max_tokens=40, stop=[word], **drawn)
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.choices[0].message.content == text[: text.index(word)]


def test_a_stream_is_the_whole_answer_in_pieces(client):
    for given in ({}, {"stop": ["the"]}, {"temperature": 0.9, "top_p": 0.9, "seed": 4}):
        whole = chat(client, PROMPTS[1], max_tokens=20, **given)
        events = list(
            chat(client, PROMPTS[1], max_tokens=20, stream=True, stream_options={"include_usage": True}, **given)
        )
        pieces = [each.choices[0].delta.content or "" for each in events if each.choices]
        assert "".join(pieces) == whole.choices[0].message.content
        assert events[-1].usage == whole.usage
        assert [each.choices[0].finish_reason for each in events if each.choices][-1] == whole.choices[0].finish_reason
    long = {"model": "writer", "prompt": list(PROMPTS), "max_tokens": 40, "temperature": 2, "seed": 0}
    found, pieces = {0: "", 1: "", 2: ""}, 0
    for each in client.completions.create(**long, stream=True):
        found[each.choices[0].index] += each.choices[0].text
        pieces += bool(each.choices[0].text)
    assert [*found.values()] == [each.text for each in client.completions.create(**long).choices]
    assert pieces > len(found)


def test_a_seed_repeats_and_none_does_not(client):
    drawn = {"temperature": 1.5, "max_tokens": 20}
    first, second = (chat(client, PROMPTS[0], seed=1, **drawn).choices[0].message.content for _ in range(2))
    assert first == second
    assert len({chat(client, PROMPTS[0], **drawn).choices[0].message.content for _ in range(4)}) > 1


def test_requests_that_ask_differently_run_together_and_keep_their_own(client, writing):
    asked = [{"max_tokens": 1 + i % 20, "temperature": i % 3 / 2, "seed": i} for i in range(32)]
    alone = [chat(client, PROMPTS[i % 3], **given).choices[0].message.content for i, given in enumerate(asked)]
    before = {name: writing.metric(f"llmops_batch_requests_{name}") for name in ("sum", "count")}
    # `top_p` changes nothing at 1.0 less a rounding, and is another key of the cache
    again = [{**given, "top_p": 0.9999999} if given["temperature"] else given for given in asked]
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda i: chat(client, PROMPTS[i % 3], **again[i]).choices[0].message.content, range(32)))
    assert found == alone
    ran = {name: writing.metric(f"llmops_batch_requests_{name}") - before[name] for name in before}
    assert 0 < ran["count"] < ran["sum"]


def test_langchains_client_works_unchanged(writing, model):
    asked = ChatOpenAI(base_url=f"{writing.url}/v1", api_key="any", model="writer", temperature=0, max_tokens=8)
    (expected,) = model.predict([PROMPTS[0]], params={"max_new_tokens": 8})
    answer = asked.invoke(PROMPTS[0])
    assert answer.content.strip() == expected and answer.usage_metadata["output_tokens"] > 0
    assert "".join(piece.content for piece in asked.stream(PROMPTS[0])).strip() == expected


REFUSED = {
    "negative max_tokens": ({"max_tokens": -1}, "max_tokens: "),
    "temperature": ({"temperature": -0.1}, "temperature: "),
    "top_p": ({"top_p": 0}, "top_p: "),
    "two answers": ({"n": 2}, "n: "),
    "an empty stop": ({"stop": [""]}, "stop="),
    "too long for the context": ({"max_tokens": 64}, "the model's context is 64"),
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools: "),
    "JSON asked for": ({"response_format": {"type": "json_object"}}, "response_format: "),
    "pictures": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages: ",
    ),
    "no messages": ({"messages": []}, "messages: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused(client, case):
    given, message = REFUSED[case]
    body = {"model": "writer", "messages": [{"role": "user", "content": PROMPTS[0]}], **given}
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(**body)
    assert message in refused.value.message and "Traceback" not in refused.value.message


def test_a_prompt_too_long_and_a_model_not_there(client):
    with pytest.raises(BadRequestError) as refused:
        chat(client, "the boat " * 100)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(NotFoundError, match="ask for 'writer'"):
        client.completions.create(model="gpt-5", prompt="x")
    with pytest.raises(BadRequestError, match="no classifier of ours"):
        client.embeddings.create(model="writer", input="x")


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_hangs_up_leaves_no_work_behind(writing, streams):
    body = {"model": "writer", "prompt": [f"{PROMPTS[0]} {i}" for i in range(100)], "max_tokens": 40, "stream": streams}
    sent = json.dumps(body).encode()
    host, port = writing.url.removeprefix("http://").split(":")
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}"
    left, written = (writing.metric(f"llmops_{name}_total") for name in ("hung_up", "generated_tokens"))
    began, begin_by = writing.metric("llmops_batch_requests_count"), time.monotonic() + 60
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode() + sent)
        if streams:
            assert b"200 OK" in connection.recv(4096)
        while writing.metric("llmops_batch_requests_count") == began:
            assert time.monotonic() < begin_by  # the model is to be at work on it
    deadline = time.monotonic() + 20
    while writing.metric("llmops_hung_up_total") == left or writing.metric("llmops_waiting"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert writing.metric("llmops_generated_tokens_total") - written < 100 * 40
    assert httpx.get(f"{writing.url}/ping").status_code == 200


@pytest.mark.slow
def test_a_graph_writes_what_the_network_writes_behind_a_key(exported_decoder, model, tmp_path):
    save_text_model(exported_decoder("openvino"), tmp_path / "graph")
    secret = {"MY_KEY": "s3cret-é", "OMP_NUM_THREADS": "1"}
    with serving(str(tmp_path / "graph"), tmp_path, "--key-variable", "MY_KEY", environment=secret) as running:
        (expected,) = model.predict([f"user: {PROMPTS[0]}\nassistant:"], params={"max_new_tokens": 8})
        for key, status in ((None, 401), ("wrong", 401), ("s3cret-é", 200)):
            headers = {"Authorization": f"Bearer {key}".encode()} if key else {}
            body = {"model": "graph", "messages": [{"role": "user", "content": PROMPTS[0]}]}
            answer = httpx.post(
                f"{running.url}/v1/chat/completions",
                json={**body, "max_tokens": 8, "temperature": 0},
                headers=headers,
                timeout=60,
            )
            assert answer.status_code == status
        assert answer.json()["choices"][0]["message"]["content"].strip() == expected
        assert httpx.get(f"{running.url}/metrics").status_code == 401
        assert httpx.get(f"{running.url}/ping").status_code == 200
        assert "s3cret" not in running.log.read_text()
    assert os.environ.get("MY_KEY") is None
