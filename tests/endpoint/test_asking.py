"""Asking an endpoint: no prompt is paid twice, whatever fails or dies; nothing holds the key."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

import pytest

from mlflow_llmops.endpoint import asking
from mlflow_llmops.endpoint.answers import Answer, AnswersFile, answers_path
from mlflow_llmops.endpoint.asking import Spending
from mlflow_llmops.endpoint.client import Endpoint
from mlflow_llmops.errors import ConfigError, LLMOpsError
from mlflow_llmops.methods._session import Session, session
from mlflow_llmops.methods.distill._asking import ask

PROMPTS = [f"prompt {i}" for i in range(12)]


def endpoint_of(server, **options) -> Endpoint:
    return Endpoint("m", server.url, **{"timeout": 5.0, "max_retries": 2, "option": "teacher=openai:", **options})


def asked(server, prompts, concurrency=4, spending=None, **options) -> list[Answer]:
    return ask(endpoint_of(server, **options), prompts, concurrency, spending or Spending())


def kept_lines(server) -> list[dict]:
    text = answers_path(server.url, "m").read_text()
    return [json.loads(line) for line in text.splitlines() if line]


def test_answers_stand_in_the_order_of_the_prompts_whatever_the_order_they_come_in(openai_server):
    openai_server.delay = lambda prompt: 0.02 * (11 - int(prompt.split()[1]) % 4)
    answers = asked(openai_server, PROMPTS)
    assert [answer.answer for answer in answers] == [f"answer to {prompt}" for prompt in PROMPTS]


def test_as_many_requests_are_on_their_way_as_allowed(openai_server):
    openai_server.delay = lambda prompt: 0.05
    asked(openai_server, PROMPTS, concurrency=3)
    assert openai_server.most_at_once == 3


def test_equal_prompts_are_asked_once_and_never_again_by_a_later_run(openai_server):
    first = asked(openai_server, [*PROMPTS, *PROMPTS])
    assert sorted(openai_server.prompts) == sorted(PROMPTS)
    assert asked(openai_server, [*PROMPTS, "one more"])[:12] == first[:12]
    assert sorted(openai_server.prompts) == sorted([*PROMPTS, "one more"])


def test_answers_on_the_disk_need_neither_the_key_nor_the_endpoint(openai_server, monkeypatch):
    first = asked(openai_server, PROMPTS)
    openai_server.close()
    monkeypatch.delenv("OPENAI_API_KEY")
    assert asked(openai_server, PROMPTS) == first


@pytest.mark.parametrize(
    "other", [{"temperature": 0.5}, {"temperature": None}, {"max_new_tokens": 7}, {"base_url": "slash"}]
)
def test_another_request_is_another_answer(openai_server, other):
    if "base_url" in other:  # a slash at its end makes no other endpoint
        asked(openai_server, ["p"])
        ask(Endpoint("m", openai_server.url + "/"), ["p"], 1, Spending())
        assert len(openai_server.seen) == 1
    else:
        asked(openai_server, ["p"])
        asked(openai_server, ["p"], **other)
        assert len(openai_server.seen) == 2
        body = openai_server.seen[1].body
        assert body.get("temperature", None) == other.get("temperature", 0.0)
        assert body["max_tokens"] == other.get("max_new_tokens", 64)


def test_what_is_sent_is_a_chat_with_the_key_of_the_variable(openai_server, monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "another-key")
    asked(openai_server, ["the prompt"], key_variable="OTHER_KEY")
    [seen] = openai_server.seen
    assert seen.headers["authorization"] == "Bearer another-key"
    assert seen.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "the prompt"}],
        "max_tokens": 64,
        "temperature": 0.0,
    }


# faults


def test_429_is_tried_again_after_what_retry_after_says(openai_server):
    openai_server.fail(status=429, headers={"Retry-After": "1.5"})
    [answer] = asked(openai_server, ["p"])
    assert answer.answer == "answer to p"
    assert openai_server.seen[1].at - openai_server.seen[0].at >= 1.5


@pytest.mark.parametrize(
    "fault",
    [{"status": 500}, {"status": 503}, {"close": True}, {"hang": 1.0}, {"body": '{"half'}, {"body": '"text"'}],
    ids=str,
)
def test_a_passing_fault_costs_no_answer(openai_server, fault):
    openai_server.fail(**fault)
    spending = Spending()
    answers = asked(openai_server, PROMPTS[:3], spending=spending, timeout=0.5)
    assert [answer.answer for answer in answers] == [f"answer to {prompt}" for prompt in PROMPTS[:3]]
    assert spending.requests == len(openai_server.seen) == 4


def test_a_response_without_choices_is_asked_again_once_and_then_a_counted_error(openai_server):
    empty = json.dumps({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}})
    openai_server.fault = lambda prompt: type("F", (), FAULT | {"body": empty}) if prompt == PROMPTS[0] else None
    spending = Spending()
    answers = asked(openai_server, PROMPTS[:3], spending=spending)
    assert Counter(openai_server.prompts)[PROMPTS[0]] == 2
    assert answers[0].answer is None
    assert "no choices" in answers[0].error
    assert [answer.error for answer in answers[1:]] == ["", ""]
    assert spending.prompt_tokens == 5 + 5 + 2 + 2
    assert sum(line["error"] != "" for line in kept_lines(openai_server)) == 2
    openai_server.fault = lambda prompt: None
    assert asked(openai_server, PROMPTS[:3])[0].answer == "answer to prompt 0"  # an error is not kept as an answer


FAULT = {"status": 200, "headers": {}, "body": "", "hang": 0.0, "close": False}


def test_a_content_of_null_is_an_error(openai_server):
    openai_server.answer = lambda prompt: None if prompt == PROMPTS[0] else "yes"
    answers = asked(openai_server, PROMPTS[:2])
    assert (answers[0].answer, answers[1].answer) == (None, "yes")
    assert "empty" in answers[0].error


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, r"key_variable=OPENAI_API_KEY: http://\S+ does not accept the key \(401\)"),
        (403, r"key_variable=OPENAI_API_KEY: the key may not use model m"),
        (404, r"teacher=openai:m: http://\S+ knows no such model"),
    ],
)
def test_an_error_that_all_requests_would_get_stops_at_once(openai_server, status, told):
    openai_server.delay = lambda prompt: 0.05
    openai_server.faults = [None] * 4
    openai_server.fail(99, status=status, body=json.dumps({"error": {"message": f"bad {openai_server.key}"}}))
    with pytest.raises(LLMOpsError, match=told) as raised:
        asked(openai_server, PROMPTS)
    assert "Of 12 prompts, 4 were answered and are kept, 8 are missing" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(openai_server.seen) <= 8
    openai_server.faults.clear()
    asked(openai_server, PROMPTS)
    assert max(Counter(openai_server.prompts).values()) <= 2
    assert len({line["key"] for line in kept_lines(openai_server)}) == len(kept_lines(openai_server)) == 12


def test_an_endpoint_that_is_not_there_is_named(openai_server):
    openai_server.close()
    with pytest.raises(LLMOpsError, match=r"^base_url=http://127\.0\.0\.1:\d+/v1 cannot be reached .*check base_url"):
        asked(openai_server, PROMPTS, max_retries=0)


def test_an_endpoint_that_hangs_names_the_timeout(openai_server):
    openai_server.delay = lambda prompt: 0.6
    with pytest.raises(LLMOpsError, match=r"^timeout=0.1: .* raise timeout"):
        asked(openai_server, PROMPTS[:2], max_retries=0, timeout=0.1)


def test_an_endpoint_that_only_fails_is_given_up(openai_server):
    openai_server.fail(999, status=500)
    with pytest.raises(LLMOpsError, match=r"^teacher=openai:m: .* answered 500: .*a fault"):
        asked(openai_server, [f"p {i}" for i in range(100)], max_retries=0)
    assert len(openai_server.seen) <= asking.GIVE_UP_AFTER + 4


def test_a_text_that_the_endpoint_refuses_stops_nothing(openai_server):
    refused = {f"prompt {i}" for i in range(3, 12)}
    fault = type("F", (), FAULT | {"status": 400, "body": '{"error": {"message": "against the rules"}}'})
    openai_server.fault = lambda prompt: fault if prompt in refused else None
    answers = asked(openai_server, PROMPTS, concurrency=1)
    assert [bool(answer.error) for answer in answers] == [prompt in refused for prompt in PROMPTS]
    assert "against the rules" in answers[3].error
    again = asked(openai_server, PROMPTS, concurrency=1)  # more than GIVE_UP_AFTER, and nothing else to ask
    assert [answer.error for answer in again] == [answer.error for answer in answers]


def test_a_full_quota_is_told(openai_server):
    openai_server.fail(999, status=429)
    with pytest.raises(LLMOpsError, match=r"^concurrency: .*429.*lower concurrency"):
        asked(openai_server, PROMPTS, max_retries=0)


# budgets


def test_requests_stop_at_their_budget_and_the_next_run_goes_on(openai_server):
    openai_server.delay = lambda prompt: 0.02
    with pytest.raises(ConfigError, match=r"^max_requests=5: the budget is used up; raise it .*Of 12 prompts, 5 were"):
        asked(openai_server, PROMPTS, spending=Spending(max_requests=5))
    assert len(openai_server.seen) == len(kept_lines(openai_server)) == 5
    asked(openai_server, PROMPTS, spending=Spending(max_requests=7))
    assert sorted(openai_server.prompts) == sorted(PROMPTS)


def test_retries_are_requests_of_the_budget(openai_server):
    openai_server.fail(2, status=500)
    with pytest.raises(ConfigError, match="^max_requests=3: .*Of 12 prompts, 1 were answered"):
        asked(openai_server, PROMPTS, concurrency=1, spending=Spending(max_requests=3))
    assert len(openai_server.seen) == 3


def test_a_budget_that_is_just_enough_is_enough(openai_server):
    asked(openai_server, PROMPTS, spending=Spending(max_requests=12))


def test_tokens_stop_at_their_budget(openai_server):
    long = [f"{i} " + "word " * 50 for i in range(12)]  # 51 tokens asked, 53 answered, said to be 64 + 40 at most
    spending = Spending(max_tokens=400)
    with pytest.raises(ConfigError, match="^max_tokens=400: the budget is used up"):
        asked(openai_server, long, spending=spending, max_new_tokens=55)
    assert 200 <= spending.tokens <= 400
    assert spending.tokens == sum(
        line["prompt_tokens"] + line["completion_tokens"] for line in kept_lines(openai_server)
    )
    assert spending.reserved == 0


def test_an_endpoint_that_counts_no_tokens_is_counted_roughly(openai_server):
    openai_server.usage = False
    spending = Spending()
    [answer] = asked(openai_server, ["word " * 40], spending=spending)
    assert answer.estimated
    assert 40 <= answer.prompt_tokens <= 60
    assert spending.tokens == answer.prompt_tokens + answer.completion_tokens


def test_the_run_hears_what_is_planned_and_what_was_spent(openai_server, capsys):
    heard: list[tuple[dict, int]] = []
    with session(Session(record=lambda metrics, step: heard.append((dict(metrics), step)))):
        asked(openai_server, PROMPTS)
    assert heard[0] == ({"sequence/planned_requests": 12, "sequence/planned_prompt_tokens": 36}, 0)
    spent = {"sequence/requests": 12.0, "sequence/prompt_tokens": 24.0, "sequence/completion_tokens": 48.0}
    assert heard[-1] == (spent, 12)
    shown = capsys.readouterr()
    assert "12 requests to come, about 36 prompt tokens" in shown.err
    assert shown.out == ""


# what is kept


def test_a_half_written_line_costs_that_line_alone(openai_server):
    asked(openai_server, PROMPTS[:3])
    path = answers_path(openai_server.url, "m")
    path.write_bytes(path.read_bytes()[:-30])
    asked(openai_server, PROMPTS)
    assert len(openai_server.seen) == 13
    asked(openai_server, PROMPTS)
    assert len(openai_server.seen) == 13


def test_what_another_process_answers_meanwhile_is_not_asked(openai_server):
    endpoint = endpoint_of(openai_server)
    key = endpoint.key_of(endpoint.request(PROMPTS[11]))
    openai_server.delay = lambda prompt: 0.02
    other = AnswersFile(answers_path(endpoint.url, "m"))
    threading.Timer(0.03, lambda: other.append(Answer(key, "from the other"))).start()
    answers = asked(openai_server, PROMPTS, concurrency=1)
    assert answers[11].answer == "from the other"
    assert PROMPTS[11] not in openai_server.prompts


KILLED = """
import sys
from mlflow_llmops.endpoint.asking import Spending
from mlflow_llmops.methods.distill._asking import ask
from mlflow_llmops.endpoint.client import Endpoint
prompts = [f"prompt {i}" for i in range(40)]
answers = ask(Endpoint("m", sys.argv[1], max_retries=0), prompts, 4, Spending())
print(*(answer.answer for answer in answers), sep="\\n")
"""


def test_a_killed_process_costs_only_what_was_on_its_way(openai_server):
    openai_server.delay = lambda prompt: 0.05
    command = [sys.executable, "-c", KILLED, openai_server.url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(openai_server.seen) < 15 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(0.2)
    before = Counter(openai_server.prompts)
    assert 15 <= sum(before.values()) < 40
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"answer to prompt {i}" for i in range(40)]
    after = Counter(openai_server.prompts)
    assert set(after) == {f"prompt {i}" for i in range(40)}
    assert max(after.values()) <= 2
    assert sum(count - 1 for count in after.values()) <= 4  # those on their way at the kill


def test_an_interrupt_keeps_what_is_on_its_way(openai_server, monkeypatch):
    openai_server.delay = lambda prompt: 0.1
    monkeypatch.setattr(asking, "wait", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        asked(openai_server, PROMPTS)
    assert len(openai_server.seen) == len(kept_lines(openai_server)) == 4


def test_a_full_disk_ends_it_with_the_error_of_the_disk(openai_server, monkeypatch):
    monkeypatch.setattr(os, "write", lambda file, line: 3)
    with pytest.raises(OSError, match="No space left on device"):
        asked(openai_server, PROMPTS)


# the key


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500])
def test_the_key_is_nowhere(openai_server, tmp_path, caplog, capsys, status):
    caplog.set_level(logging.DEBUG)
    heard: list = []
    if status != 200:
        openai_server.fail(999, status=status, body=json.dumps({"error": {"message": f"bad {openai_server.key}"}}))
    shown = ""
    with session(Session(record=lambda *given: heard.append(given))):
        try:
            shown = repr(asked(openai_server, PROMPTS, max_retries=0))
        except LLMOpsError as error:
            assert status != 200
            shown = "".join(traceback.format_exception(error)) + repr(error)
    assert openai_server.seen[0].headers["authorization"] == f"Bearer {openai_server.key}"
    files = [path for path in Path(tmp_path).rglob("*") if path.is_file()]
    assert files or status != 200
    captured = capsys.readouterr()
    everything = [shown, repr(heard), captured.out, captured.err, *(path.read_text() for path in files)]
    everything += [record.getMessage() for record in caplog.records if not record.name.startswith("openai_server")]
    assert not any(openai_server.key in text for text in everything)


def test_without_a_key_nothing_is_asked(openai_server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="^key_variable=OPENAI_API_KEY: no such variable is set; export it"):
        asked(openai_server, PROMPTS)
    assert not openai_server.seen
