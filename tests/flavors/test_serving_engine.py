"""A loaded version under many threads, after a pickle, and in one session with its copies."""

import multiprocessing
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from mlflow_llmops.batching.options import EngineOptions
from mlflow_llmops.batching.sessions import KEPT
from mlflow_llmops.errors import ConfigError, Overloaded
from mlflow_llmops.flavors import exported_text
from mlflow_llmops.flavors._overload import told_to_servers
from mlflow_llmops.flavors.by_kind import save_text_model
from mlflow_llmops.flavors.text import OWN_CODE
from mlflow_llmops.measure.generation import prompts_of

TOLERANCE = 1e-5
"""Of a probability: with whom a text shares its batch may change how sums are rounded."""


@pytest.fixture(autouse=True)
def nothing_open():
    KEPT.leave()


@pytest.fixture(scope="module")
def saved(tiny_model, tiny_exported, tiny_decoder, exported_decoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    models = {"torch": tiny_model, "openvino": tiny_exported, "writer": tiny_decoder}
    for name, model in {**models, "exported-writer": exported_decoder("onnx")}.items():
        save_text_model(model, folder / name)
    return folder


def load(folder, **config):
    return mlflow.pyfunc.load_model(str(folder), model_config=config or None)


def counts(model) -> dict[str, int]:
    return model.get_raw_model().counts()


def at_once(predict, requests, threads=16):
    """All threads begin together, so that some calls meet in the network."""
    together = Barrier(threads)

    def work(share):
        together.wait()
        return [predict(request) for request in share]

    with ThreadPoolExecutor(threads) as pool:
        shares = list(pool.map(work, [requests[i::threads] for i in range(threads)]))
    return [shares[i % threads][i // threads] for i in range(len(requests))]


@pytest.mark.parametrize("kind", ["torch", "openvino"])
def test_threads_get_their_own_answers_in_fewer_runs_than_calls(saved, tiny_texts, kind):
    texts = [*tiny_texts.test.texts, *tiny_texts.train.texts[:360]]
    requests = [[text, None] if i % 7 == 0 else [text] for i, text in enumerate(texts)]
    alone = load(saved / kind, gather=False, memo_rows=0)
    expected = [alone.predict(request) for request in requests]
    model = load(saved / kind, memo_rows=0)
    answers = at_once(model.predict, requests)
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer["label"].tolist() == wanted["label"].tolist()
        np.testing.assert_allclose(answer["score"], wanted["score"], atol=TOLERANCE)
    seen = counts(model)
    assert seen["calls"] == len(requests) > seen["runs"]
    assert "calls" not in counts(alone)


@pytest.mark.parametrize("kind", ["writer", "exported-writer"])
def test_threads_that_write_get_their_own_completions(saved, tiny_texts, kind):
    prompts = list(prompts_of(tiny_texts.test.texts, 48))
    params = [{"max_new_tokens": 6}, {"max_new_tokens": 6, "temperature": 1.0, "seed": 3}]
    requests = [(prompt, params[i % 2]) for i, prompt in enumerate(prompts)]
    alone = load(saved / kind, gather=False, memo_rows=0)
    expected = [alone.predict([prompt], params=how) for prompt, how in requests]
    model = load(saved / kind, memo_rows=100)
    ask = lambda request: model.predict([request[0]], params=request[1])  # noqa: E731
    assert at_once(ask, requests) == expected
    before = counts(model)
    assert before["runs"] < before["calls"]
    assert at_once(ask, requests) == expected
    assert counts(model)["calls"] == before["calls"], "all that was written before is remembered"
    assert counts(model)["memo_hits"] == before["memo_hits"] + len(requests)


def test_a_repeated_text_is_remembered_within_the_bound(saved, tiny_texts):
    texts = list(tiny_texts.test.texts[:20])
    model = load(saved / "openvino", memo_rows=15)
    first = model.predict(texts)
    assert counts(model) == {
        **{"memo_hits": 0, "memo_misses": 20, "memo_rows": 15},
        **{"calls": 1, "runs": 1, "refused": 0},
    }
    again = model.predict([*texts[-15:], texts[-1], None])
    assert counts(model)["memo_hits"] == 15 and counts(model)["runs"] == 1
    assert again["score"].tolist()[:15] == first["score"].tolist()[-15:]
    assert np.isnan(again["score"].iloc[-1])


def test_equal_folders_share_a_session_and_others_do_not(saved, tiny_texts, tmp_path):
    shutil.copytree(saved / "openvino", tmp_path / "copy")
    shutil.copytree(saved / "openvino", tmp_path / "relabelled")
    path = tmp_path / "relabelled" / "artifact" / "llmops.json"
    path.write_text(path.read_text().replace('"sea"', '"ocean"'))
    one, copy, other = (load(p) for p in (saved / "openvino", tmp_path / "copy", tmp_path / "relabelled"))
    session = lambda model: model._model_impl._handle.session  # noqa: E731
    assert session(one) is session(copy) is session(load(saved / "openvino"))
    assert session(one) is not session(other)
    assert session(load(saved / "openvino", memo_rows=0)) is not session(one)
    shutil.rmtree(tmp_path / "copy")
    labels = [model.predict(list(tiny_texts.test.texts))["label"] for model in (copy, other)]
    assert labels[1].tolist() == labels[0].replace("sea", "ocean").tolist()
    assert "ocean" in set(labels[1])


def test_a_trusted_model_shares_nothing_with_the_same_one_that_is_not(saved, tmp_path):
    shutil.copytree(saved / "torch", tmp_path / "trusted")
    path = tmp_path / "trusted" / "MLmodel"
    path.write_text(path.read_text().replace("metadata:\n", f"metadata:\n  {OWN_CODE}: true\n"))
    one, other = (load(folder)._model_impl._handle.session for folder in (saved / "torch", tmp_path / "trusted"))
    assert one is not other
    assert one is load(saved / "torch")._model_impl._handle.session


def answer(model, texts, pipe):
    pipe.send(model.predict(texts)["score"].tolist())


# torch itself hangs in a child that was forked after its threads had run
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torch", "openvino"])
def test_it_predicts_in_a_process_that_got_it_pickled(saved, tiny_texts, kind):
    texts = list(tiny_texts.test.texts[:5])
    model = load(saved / kind)._model_impl
    expected = model.predict(texts)["score"].tolist()
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=answer, args=(model, texts, theirs), daemon=True)
    process.start()
    assert mine.poll(60)
    np.testing.assert_allclose(mine.recv(), expected, atol=TOLERANCE)
    process.join(20)
    assert process.exitcode == 0
    assert pickle.loads(pickle.dumps(model)).predict(texts)["score"].tolist() == expected


def test_options_come_from_the_environment_too(saved, monkeypatch):
    monkeypatch.setenv("MLFLOW_PYFUNC_INFERENCE_CONFIG", '{"gather": false, "memo_rows": 3, "token_budget": 99}')
    for kind in ("torch", "openvino", "writer"):
        shared = load(saved / kind)._model_impl._handle.session
        shared = getattr(shared, "scorer", shared)
        assert shared.gatherer is None and shared.memo.rows == 3
    assert load(saved / "openvino")._model_impl._handle.session.scorer.scorer.token_budget == 99


@pytest.mark.parametrize(
    ("name", "value"), [("gather", "no"), ("memo_rows", -1), ("queue", 0), ("threads", True), ("token_budget", 1.5)]
)
def test_an_option_that_cannot_work_is_named(saved, name, value):
    with pytest.raises(ConfigError, match=f"^{name}="):
        load(saved / "openvino", **{name: value})


def test_a_version_that_was_logged_before_there_were_options_still_loads(tiny_exported):
    assert exported_text._load_pyfunc(str(tiny_exported.folder)).predict(["the boat"]).shape == (1, 2)
    assert EngineOptions.of({"batch_size": 32}) == EngineOptions()


def test_where_a_score_hangs_on_its_batch_nothing_is_gathered_or_remembered_unless_asked_for(tiny_exported, tmp_path):
    for kind, precision, memo, gathers in (
        ("onnx", "int8 dynamic", 0, False),
        ("onnx", "fp32", 10_000, False),
        ("openvino", "int8 static", 10_000, True),
    ):
        artifact = replace(tiny_exported.artifact, kind=kind, precision=precision)
        assert exported_text.defaults_of(artifact) == EngineOptions(memo_rows=memo, gather=gathers)
    shutil.copytree(tiny_exported.folder, tmp_path / "dynamic")
    replace(tiny_exported.artifact, precision="int8 dynamic").write(tmp_path / "dynamic")
    exported_text.save_model(tmp_path / "dynamic", tmp_path / "saved")
    for model in (load(tmp_path / "saved"), exported_text.load_model(str(tmp_path / "saved"))):
        model.predict(["the boat"] * 2)
        assert model.get_raw_model().counts() == {"memo_hits": 0, "memo_misses": 0, "memo_rows": 0}
    asked = load(tmp_path / "saved", memo_rows=5, gather=True)
    asked.predict(["the boat"])
    assert counts(asked)["memo_rows"] == counts(asked)["calls"] == 1


def test_an_overload_is_503_to_mlflows_server():
    with pytest.raises(MlflowException) as told, told_to_servers():
        raise Overloaded("overloaded: 3 calls wait")
    assert told.value.get_http_status_code() == 503
    assert isinstance(told.value, Overloaded)
    assert str(told.value) == "overloaded: 3 calls wait"
