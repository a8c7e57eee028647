"""Our plugins in MLflow's own commands."""

import dataclasses
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from mlflow_llmops import names
from mlflow_llmops.flavors import exported_text, langchain_chain, openai_chat, text
from mlflow_llmops.flavors._chain_settings import ChainSettings
from mlflow_llmops.flavors._chat_settings import ChatSettings
from mlflow_llmops.tracking.evaluation import evaluate_pyfunc
from tests.endpoints import Fault


def test_every_run_says_what_machine_it_ran_on(store):
    with mlflow.start_run() as run:
        pass
    tags = mlflow.get_run(run.info.run_id).data.tags
    assert tags[names.HARDWARE]
    assert int(tags[names.HARDWARE_PREFIX + "cores"]) >= 1
    assert tags[names.RUNTIME_PREFIX + "torch"]


@pytest.fixture
def logged(store, tiny_exported, tiny_texts):
    with mlflow.start_run():
        uri = exported_text.log_model(tiny_exported.folder).model_uri
    return uri, pd.DataFrame({"text": tiny_texts.test.texts, "label": tiny_texts.test.labels})


def test_the_evaluator_gives_the_metrics_of_our_own_runs(logged):
    uri, data = logged
    with mlflow.start_run() as run:
        result = mlflow.models.evaluate(uri, data, targets="label", model_type="classifier", evaluators="llmops")
    kept = mlflow.get_run(run.info.run_id).data.metrics
    for name in (names.ACCURACY, names.F1_MACRO, names.TEXTS_PER_S, names.LATENCY_P50):
        assert result.metrics[name] == kept[name]
        assert kept[name + names.LOW] <= kept[name] <= kept[name + names.HIGH]
    right = mlflow.pyfunc.load_model(uri).predict(data["text"])["label"] == data["label"]
    assert kept[names.ACCURACY] == pytest.approx(right.mean())


def test_the_evaluator_times_the_network_and_not_what_it_remembers(logged):
    model, frame = mlflow.pyfunc.load_model(logged[0]), logged[1]

    def hits() -> int:
        return model.get_raw_model().counts()["memo_hits"]

    model.predict(frame[["text"]])
    known = hits()
    model.predict(frame[["text"]])
    once = hits() - known
    found = evaluate_pyfunc(model, frame[["text"]], frame["label"].tolist(), seconds=0.2)
    assert names.TEXTS_PER_S in found
    # the one pass of quality finds its texts as a call does, and the rounds of timing none
    assert hits() == known + 2 * once > known


def test_the_evaluator_says_what_it_needs(logged):
    uri, data = logged
    with mlflow.start_run(), pytest.raises(Exception, match="give targets="):
        mlflow.models.evaluate(uri, data[["text"]], model_type="text-classification", evaluators="llmops")
    two = data.assign(other=data["text"])
    with mlflow.start_run(), pytest.raises(Exception, match="takes one column of texts; the data has: text, other"):
        mlflow.models.evaluate(uri, two, targets="label", model_type="classifier", evaluators="llmops")


@pytest.fixture
def endpoint(openai_server) -> ChatSettings:
    openai_server.answer = lambda prompt: (
        "" if "nothing" in prompt else "le bateau, bleu" if "boat" in prompt else "four"
    )
    return ChatSettings(
        "m", "{text}", base_url=openai_server.url, max_retries=0, prompt_price=1.0, completion_price=1.0
    )


WORDS = pd.DataFrame(
    {"text": ["the boat", "an oven", "bad"], "french": ["Le bateau bleu et rouge", "four", "quelque chose"]}
)


def evaluated(uri, data, **given):
    """The metrics of a run, and the rows that it kept."""
    with mlflow.start_run() as run:
        found = mlflow.models.evaluate(uri, data, model_type="text-generation", evaluators="llmops", **given).metrics
    assert {name: mlflow.get_run(run.info.run_id).data.metrics[name] for name in found} == found
    return found, mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/{names.ANSWERS}")["rows"]


@pytest.mark.parametrize("flavor", ["openai_chat", "langchain_chain"])
def test_what_an_endpoint_writes_is_held_against_what_was_wanted(openai_server, endpoint, store, flavor):
    openai_server.fault = lambda prompt: Fault(status=500) if "bad" in prompt else None
    with mlflow.start_run():
        if flavor == "openai_chat":
            uri = openai_chat.log_model(endpoint).model_uri
        else:
            Path("chain").mkdir()
            ChainSettings("translate", endpoint, prompt="{text}").write(Path("chain"))
            uri = langchain_chain.log_model(Path("chain")).model_uri
    found, rows = evaluated(uri, WORDS, targets="french")
    assert found[names.EXACT_MATCH] == pytest.approx(1 / 3)
    assert found[names.ROUGE_L] == pytest.approx((2 * 3 / (3 + 5) + 1 + 0) / 3)
    assert (found[names.FAILED_ROWS], found[names.QUALITY_TEXTS]) == (1, 3)
    assert (names.COST in found) == (flavor == "openai_chat")
    assert [row["asked"] for row in rows] == ["the boat", "an oven", "bad"]
    assert [row["answer"] for row in rows] == ["le bateau, bleu", "four", None]
    assert [row["wanted"] for row in rows] == WORDS["french"].tolist()
    assert rows[0]["error"] is None and rows[2]["error"]
    assert names.TEXTS_PER_S not in found
    assert len(openai_server.seen) == 3
    without, _ = evaluated(uri, WORDS[["text"]])
    assert names.ROUGE_L not in without and without[names.FAILED_ROWS] == 1


def test_a_stopwatch_is_for_who_asks_and_times_no_memory(openai_server, endpoint, store):
    openai_server.delay = lambda prompt: 0.02
    with mlflow.start_run():
        uri = openai_chat.log_model(dataclasses.replace(endpoint, prompt="{text} {more}")).model_uri
    data = WORDS.rename(columns={"french": "more"})
    with pytest.raises(Exception, match="the data has no column more, which the model takes: text, other"):
        evaluated(uri, data.rename(columns={"more": "other"}))
    found, rows = evaluated(uri, data, evaluator_config={"seconds": 0.1})
    assert rows[0]["asked"] == {"text": "the boat", "more": "Le bateau bleu et rouge"}
    assert found[names.LATENCY_P50] >= 20
    assert names.TOKENS_PER_S not in found


def test_what_a_causal_version_writes_is_evaluated_without_targets(store, tiny_decoder):
    with mlflow.start_run():
        uri = text.log_model(tiny_decoder, "model").model_uri
    found, rows = evaluated(uri, pd.DataFrame({"text": ["the boat", "an oven"]}))
    assert [row["answer"] for row in rows] == mlflow.pyfunc.load_model(uri).predict(["the boat", "an oven"])
    assert (found[names.FAILED_ROWS], found[names.QUALITY_TEXTS]) == (0, 2)
