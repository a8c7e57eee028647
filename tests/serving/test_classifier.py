"""What a classifier answers over HTTP: what its pyfunc predicts, to each its own, and a refusal for all else."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def model(labelling):
    return mlflow.pyfunc.load_model(labelling.model)


def test_invocations_are_what_the_pyfunc_predicts(labelling, model, tiny_texts):
    texts = list(tiny_texts.test.texts[:12])
    expected = model.predict(pd.DataFrame({"text": texts}))
    forms = {
        "inputs": texts,
        "instances": texts,
        "dataframe_split": {"columns": ["text"], "data": [[text] for text in texts]},
        "dataframe_records": [{"text": text} for text in texts],
    }
    with labelling.client() as client:
        answers = {form: client.post("/invocations", json={form: given}) for form, given in forms.items()}
        csv = pd.DataFrame({"text": texts}).to_csv(index=False)
        answers["csv"] = client.post("/invocations", content=csv, headers={"Content-Type": "text/csv"})
        nulls = client.post("/invocations", json={"dataframe_records": [{"text": texts[0]}, {"text": None}]})
    for form, answer in answers.items():
        assert answer.status_code == 200, (form, answer.text)
        found = pd.DataFrame(answer.json()["predictions"])
        assert found["label"].tolist() == expected["label"].tolist(), form
        np.testing.assert_allclose(found["score"], expected["score"], atol=1e-6)
    null = nulls.json()["predictions"][1]  # as MLflow writes it
    assert null["label"] is None and np.isnan(null["score"])


def test_a_graph_is_answered_without_torch_in_the_process(labelling):
    """Nor is it loaded for the command line's options: 345 MiB a worker."""
    with labelling.client() as client:
        assert client.post("/invocations", json={"inputs": ["a boat"]}).status_code == 200
    loaded = {mapped.path for mapped in psutil.Process(labelling.process.pid).memory_maps()}
    assert any("onnxruntime" in path or "openvino" in path for path in loaded)
    assert not [path for path in loaded if "libtorch" in path]


def test_labels_have_all_their_scores(labelling, model, tiny_texts):
    texts = list(tiny_texts.test.texts[:5])
    with labelling.client() as client:
        answer = client.post("/v1/classify", json={"model": "tiny", "input": texts}).json()
        alone = client.post("/v1/classify", json={"model": "tiny", "input": texts[0]}).json()
    expected = model.predict(texts)
    assert [each["label"] for each in answer["data"]] == expected["label"].tolist()
    for each, score in zip(answer["data"], expected["score"], strict=True):
        assert each["score"] == pytest.approx(score, abs=1e-6) and each["score"] == max(each["scores"].values())
        assert sum(each["scores"].values()) == pytest.approx(1, abs=1e-5) and len(each["scores"]) == 3
    assert alone["data"][0]["label"] == answer["data"][0]["label"]
    assert answer["usage"]["prompt_tokens"] > 5


def test_many_at_once_get_their_own_answers_together(labelling, model, tiny_texts):
    texts = list(tiny_texts.train.texts[:320])
    expected = model.predict(texts)
    before = {name: labelling.metric(f"llmops_batch_requests_{name}") for name in ("sum", "count")}
    with labelling.client() as client, ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda text: client.post("/invocations", json={"inputs": [text]}).json(), texts))
    found = pd.DataFrame([answer["predictions"][0] for answer in answers])
    assert found["label"].tolist() == expected["label"].tolist()
    np.testing.assert_allclose(found["score"], expected["score"], atol=1e-6)
    ran = {name: labelling.metric(f"llmops_batch_requests_{name}") - before[name] for name in before}
    assert ran["sum"] == len(texts) and ran["count"] < 0.8 * len(texts)


def test_an_answer_that_was_given_before_comes_from_the_cache(labelling):
    asked = {"model": "tiny", "input": "a text that nobody asked for before"}
    with labelling.client() as client:
        first = client.post("/v1/classify", json=asked)
        hits, turns = labelling.metric("llmops_cache_hits_total"), labelling.metric("llmops_batch_requests_count")
        again = client.post("/v1/classify", json=asked)
    assert first.json() == again.json()
    assert labelling.metric("llmops_cache_hits_total") == hits + 1
    assert labelling.metric("llmops_batch_requests_count") == turns


GOOD = {"model": "tiny", "input": "the boat"}
BAD = {
    "malformed JSON": ("/v1/classify", "{", JSON, 400, "the body is no JSON"),
    "JSON that is no object": ("/v1/classify", "[]", JSON, 400, "body: "),
    "not UTF-8": ("/v1/classify", b'{"model": "tiny", "input": "\xff"}', JSON, 400, "the body is no JSON"),
    "nested too deep": ("/v1/classify", "[" * 30_000, JSON, 400, "the body is no JSON"),
    "no text": ("/v1/classify", json.dumps({"model": "tiny"}), JSON, 400, "input: field required"),
    "half a letter": ("/v1/classify", r'{"model": "tiny", "input": "\ud800"}', JSON, 400, "surrogate"),
    "unknown model": ("/v1/classify", json.dumps({**GOOD, "model": "gpt-5"}), JSON, 404, "'gpt-5' is not served"),
    "unknown route": ("/v1/images", json.dumps(GOOD), JSON, 404, "no such route"),
    "wrong content type": ("/v1/classify", json.dumps(GOOD), {"Content-Type": "text/plain"}, 415, "application/json"),
    "text too long": ("/v1/classify", json.dumps({**GOOD, "input": "a" * 5001}), JSON, 413, "a text of 5,001 letters"),
    "too many texts": ("/v1/classify", json.dumps({**GOOD, "input": ["a"] * 201}), JSON, 413, "201 texts; at most 200"),
    "body too large": ("/v1/classify", json.dumps({**GOOD, "input": "a" * 50_000}), JSON, 413, "larger than 40,000"),
    "it writes nothing": (
        "/v1/completions",
        json.dumps({"model": "tiny", "prompt": "a"}),
        JSON,
        400,
        "no causal model of ours; it answers at /v1/classify and /invocations",
    ),
    "a graph embeds nothing": ("/v1/embeddings", json.dumps(GOOD), JSON, 400, "serve the torch version"),
    "invocations, malformed": ("/invocations", "{", JSON, 400, "valid JSON"),
    "invocations, no known form": (
        "/invocations",
        '{"rows": ["a"]}',
        JSON,
        400,
        "exactly one of the input fields",
    ),
    "invocations, wrong content type": ("/invocations", "a", {"Content-Type": "image/png"}, 415, "send one of"),
    "invocations, no content type": ("/invocations", "a", {}, 415, "missing"),
    "invocations, ragged": (
        "/invocations",
        json.dumps({"dataframe_split": {"columns": ["a"], "data": [["x", "y"]]}}),
        JSON,
        400,
        "",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_has_a_status_and_a_message_and_no_traceback(labelling, case):
    path, body, headers, status, message = BAD[case]
    with labelling.client() as client:
        answer = client.post(path, content=body, headers=headers)
        assert answer.status_code == status, answer.text
        assert message in answer.text and "Traceback" not in answer.text and "stack_trace" not in answer.text
        said = answer.json()
        assert said.get("message") or said["error"]["message"]
        assert client.post("/v1/classify", json=GOOD).status_code == 200


def test_a_lone_client_does_not_wait_for_the_networks_timers(labelling):
    """40 ms is what Nagle's algorithm and a delayed acknowledgement cost together."""
    with labelling.client() as client:
        times = []
        for i in range(30):
            start = time.perf_counter()
            client.post("/v1/classify", json={**GOOD, "input": f"the boat {i}"})
            times.append(time.perf_counter() - start)
    assert min(times) < 0.03


def test_a_method_that_a_route_has_not(labelling):
    answer = httpx.get(f"{labelling.url}/v1/classify")
    assert answer.status_code == 405 and "GET is not a method of /v1/classify" in answer.text


def test_the_models_and_the_version(labelling):
    with labelling.client() as client:
        listed = client.get("/v1/models").json()["data"]
        assert [each["id"] for each in listed] == ["tiny"]
        assert client.get("/v1/models/tiny").json() == listed[0]
        assert client.get("/v1/models/other").status_code == 404
        assert client.get("/version").text == mlflow.__version__
        assert client.get("/health").status_code == client.get("/ping").status_code == 200


def raw(url: str, sent: list[bytes], pause: float = 0.0) -> bytes:
    """What comes back for bytes that no client library would send."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        for part in sent:
            connection.sendall(part)
            time.sleep(pause)
        found = b""
        while part := connection.recv(65536):
            found += part
    return found


HEAD = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_a_body_that_stops_short_is_told_after_its_time(labelling):
    start = time.monotonic()
    answer = raw(labelling.url, [HEAD + b"Content-Length: 100\r\n\r\n{"])
    assert answer.startswith(b"HTTP/1.1 408 ") and b"did not end within 2 seconds" in answer
    assert time.monotonic() - start < 20


def test_a_body_that_never_ends_is_told_at_its_bound(labelling):
    chunk = b"2710\r\n" + b"a" * 10_000 + b"\r\n"
    answer = raw(labelling.url, [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 33])
    assert answer.startswith(b"HTTP/1.1 413 ") and b"larger than 40,000 bytes" in answer


def test_a_body_that_declares_too_much_is_refused_unread(labelling):
    answer = raw(labelling.url, [HEAD + b"Content-Length: 99999999999\r\n\r\n"])
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_client_that_leaves_in_its_body_leaves_nothing_behind(labelling):
    host, port = labelling.url.removeprefix("http://").split(":")
    left = labelling.metric("llmops_hung_up_total")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
    deadline = time.monotonic() + 10
    while labelling.metric("llmops_hung_up_total") == left:
        assert time.monotonic() < deadline
        time.sleep(0.05)
