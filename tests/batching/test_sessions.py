"""What is open is shared by content, opened once, and bounded."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlflow_llmops.batching.digest import digest_of
from mlflow_llmops.batching.sessions import KEPT, SESSIONS, Sessions
from mlflow_llmops.errors import ConfigError


@pytest.fixture
def folders(tmp_path):
    for name, content in {"one": b"weights", "same": b"weights", "other": b"weighty"}.items():
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "graph.bin").write_bytes(content)
    return tmp_path


def test_a_digest_is_of_names_and_contents_and_not_of_the_place(folders):
    one, same, other = (digest_of(folders / name) for name in ("one", "same", "other"))
    assert one == same != other
    (folders / "same" / "deep" / "graph.bin").rename(folders / "same" / "graph.bin")
    assert digest_of(folders / "same") != one
    assert digest_of(folders / "one", folders / "other") != digest_of(folders / "other", folders / "one")


def test_a_file_that_changes_has_another_digest(folders):
    before = digest_of(folders / "one")
    path = folders / "one" / "deep" / "graph.bin"
    changed = path.stat().st_mtime_ns + 1
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(changed, changed))
    assert digest_of(folders / "one") != before


def test_threads_that_ask_at_once_open_once_and_do_not_wait_for_another_model():
    sessions, opened = Sessions(), []

    def open_(key):
        time.sleep(0.05)
        opened.append(key)
        return object()

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda i: sessions.get(i % 2, lambda: open_(i % 2)), range(32)))
    assert sorted(opened) == [0, 1]
    assert len(set(map(id, found))) == 2
    assert (sessions.hits, sessions.misses) == (30, 2)


def test_the_one_that_was_asked_for_longest_ago_is_let_go(monkeypatch):
    sessions = Sessions()
    for key in range(5):
        sessions.get(key, object)
        assert len(sessions) <= SESSIONS
    monkeypatch.setenv("LLMOPS_SESSIONS", "0")
    assert sessions.get(9, object) is not sessions.get(9, object)
    monkeypatch.setenv("LLMOPS_SESSIONS", "many")
    with pytest.raises(ConfigError, match="^LLMOPS_SESSIONS='many'"):
        sessions.get(10, object)


def test_one_that_cannot_be_opened_is_tried_again():
    sessions = Sessions()
    with pytest.raises(ZeroDivisionError):
        sessions.get("a", lambda: 1 / 0)
    assert sessions.get("a", lambda: 5) == 5


def test_a_forked_child_has_none_of_its_parents_sessions():
    KEPT.get("of the parent", object)
    assert len(KEPT)
    child = os.fork()
    if not child:
        os._exit(len(KEPT))  # nothing else runs in a child of many threads
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(KEPT)
