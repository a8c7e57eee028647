"""A search finds what trying everything finds, makes nothing twice, goes on after a kill, and keeps limits and time."""

import json
import os
import signal
import subprocess
import sys
import time

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError, GateFailed
from mlflow_llmops.methods.prune.vocabulary import Vocabulary
from mlflow_llmops.models.load import load
from mlflow_llmops.search.space import read_space, said
from mlflow_llmops.search.study import FAILED
from mlflow_llmops.steps.parameters import run as run_verb
from mlflow_llmops.steps.search import search

SPACE = (
    "prune.neurons(fraction=0.25; recovery=none) | prune.neurons(fraction=0.5; recovery=none) > "
    "distill.logits(epochs=0.5) > none | prune.vocabulary"
)
BRIEF = {"trial_seconds": 0.2, "measure_seconds": 0.5}


@pytest.fixture(scope="module")
def made_before(tmp_path_factory):
    """Where the searches of this file keep what they made."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def given(store, made_before, tiny_folder, tiny_data, monkeypatch):
    monkeypatch.setenv("LLMOPS_WORK", str(made_before))
    return {"model": str(tiny_folder), "data": str(tiny_data), "objective": "size", "space": SPACE, **BRIEF}


def trials_of(parent: str) -> list[mlflow.entities.Run]:
    """The nested runs of trials, which are not the winner's."""
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent]
    return [run for run in nested if names.CHAIN_FINGERPRINT in run.data.tags]


@pytest.mark.slow
def test_it_finds_what_trying_everything_finds_and_a_second_search_makes_nothing(given, made_before):
    first = search(**given, max_quality_drop=0.5, sampler="grid", register_as="tiny")
    parameters = {}
    for chain in read_space(SPACE, "text-classification").chains:
        (kept,) = [path.parent for path in made_before.glob("made/*/done.json") if said(chain) == _chain_in(path)]
        parameters[said(chain)] = load(str(kept / "model")).network.num_parameters()
    smallest = min(parameters, key=parameters.get)
    assert first.values["best"].chain == smallest
    version = MlflowClient().get_model_version("tiny", "1")
    assert mlflow.pyfunc.load_model(version.source).predict(["oven and butter"])["label"][0]
    assert "the best at size on dev" in version.tags[names.VERDICT]

    run, nested = mlflow.get_run(first.run_id), trials_of(first.run_id)
    assert len(nested) == 4 == len({each.data.tags[names.CHAIN_FINGERPRINT] for each in nested})
    for each in nested:
        assert each.data.tags[names.SPLIT] == "dev"
        for name in (names.ACCURACY, names.QUALITY_CHANGE, names.SPEEDUP, names.LATENCY_P95, names.DISK):
            assert {name, names.BASELINE_PREFIX + name} <= set(each.data.metrics)
    trained = [each for each in nested if "distill.logits/train/loss" in each.data.metrics]
    assert len(trained) == 2, "each of the two cuts is taught once, with and without its vocabulary"
    assert run.data.metrics[names.PARAMETERS] == min(parameters.values())
    kept = {file.path for file in MlflowClient().list_artifacts(first.run_id)}
    assert {names.TRIALS, names.TRIALS_TABLE, names.PARETO_PNG} <= kept
    assert run.data.tags[names.BEST_SO_FAR].startswith("models:/")

    second = search(**given, max_quality_drop=0.5, register_as="tiny")
    assert second.values["best"].chain == smallest
    again = trials_of(second.run_id)
    assert not [each for each in again if "distill.logits/train/loss" in each.data.metrics]


@pytest.mark.slow
def test_a_trial_that_a_library_breaks_does_not_end_the_search(given, monkeypatch):
    def broken(self, model, data, folder, seed=0):
        raise RuntimeError("the compiler gave up")

    monkeypatch.setattr(Vocabulary, "apply", broken)
    given["space"] = "prune.vocabulary | prune.neurons(fraction=0.25; recovery=none)"
    found = search(**given, max_quality_drop=1.0, sampler="grid")
    assert found.values["best"].chain.startswith("prune.neurons")
    failed = {trial.chain: trial.why for trial in found.values["trials"] if trial.outcome == FAILED}
    assert failed == {"prune.vocabulary": "RuntimeError: the compiler gave up"}
    run = next(each for each in trials_of(found.run_id) if each.info.run_name == "prune.vocabulary")
    assert run.info.status == "FAILED"


def _chain_in(path) -> str:
    return " > ".join(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "trained"),
    [(SPACE, ", which was not trained"), ("prune.neurons(fraction=0.25; recovery=none)", "")],
    ids=["its shape says it", "measured"],
)
def test_where_no_chain_keeps_the_limits_the_nearest_is_shown_and_nothing_is_registered(
    space, trained, given, store, monkeypatch
):
    monkeypatch.setenv("LLMOPS_WORK", str(store / "work"))  # in which nothing was made before
    missed = "max_size_mib=0.01 is missed by 0.0"
    nothing = rf"(?s)the nearest is trial 0, prune\.neurons[^:]*{trained}: {missed}.*nothing is registered"
    with pytest.raises(GateFailed, match=nothing) as refused:
        search(**{**given, "space": space}, max_quality_drop=0.5, max_size_mib=0.01, register_as="tiny", max_trials=1)
    assert refused.value.exit_code == 3
    assert refused.value.shown
    assert MlflowClient().search_registered_models() == []
    (parent,) = [each for each in mlflow.search_runs(output_format="list") if each.info.run_name == "search"]
    assert parent.info.status == "FAILED"
    assert names.TRIALS_TABLE in {file.path for file in MlflowClient().list_artifacts(parent.info.run_id)}


def test_a_budget_of_zero_starts_nothing(given):
    with pytest.raises(GateFailed, match="no trial was measured: the time budget is over; nothing is registered"):
        search(**given, time_budget_min=0, register_as="tiny")
    assert len(mlflow.search_runs(output_format="list")) == 1


@pytest.mark.parametrize(
    ("options", "said_of_it"),
    [
        ({"objective": "speed"}, "objective='speed': input should be 'throughput', 'latency' or 'size'"),
        ({"batch_size": "8"}, "give both or none"),
        ({"batch_size": "8", "length": "100000"}, "length=100000: the model takes"),
        ({"space": "prune.layer"}, "near ones: prune.layers"),
        ({"time_budget_min": "-1"}, "time_budget_min"),
        ({"register_as": "a/b"}, "register_as='a/b'"),
    ],
)
def test_a_question_that_cannot_be_asked_is_one_line(given, options, said_of_it):
    with pytest.raises(ConfigError, match=said_of_it):
        run_verb("search", {"model": given["model"], "data": given["data"], **options})


@pytest.mark.slow
def test_after_kill_9_a_resume_tries_no_finished_trial_again(store, tiny_folder, tiny_data):
    environment = {**os.environ, "LLMOPS_WORK": str(store / "work"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mlflow_llmops", "search", "--model", str(tiny_folder), "--data", str(tiny_data)]
    command += ["--objective", "size", "--space", SPACE, "--sampler", "grid", "--max-quality-drop", "0.5"]
    command += ["--trial-seconds", "0.2", "--measure-seconds", "0.5", "--register-as", "tiny"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = None
    while journal is None or journal.read_text().count('"ended"') < 2:
        assert process.poll() is None, "it ended before it could be killed"
        journal = next(iter(store.glob("work/*/study.journal")), None)
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    parent = journal.parent.name
    done = subprocess.run([*command, "--resume", parent], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert mlflow.get_run(parent).info.status == "FINISHED"
    assert not [run for run in trials_of(parent) if run.info.status == "RUNNING"]
    finished = [run.data.tags[names.CHAIN] for run in trials_of(parent) if run.info.status == "FINISHED"]
    assert sorted(finished) == sorted(map(said, read_space(SPACE, "text-classification").chains))
    assert MlflowClient().get_model_version("tiny", "1").run_id
    assert [folder.name for folder in (store / "work").iterdir()] == ["made"]


@pytest.mark.slow
def test_a_causal_model_is_searched_too(store, tiny_decoder_folder, tiny_data, monkeypatch):
    monkeypatch.setenv("LLMOPS_WORK", str(store / "work"))
    found = search(
        str(tiny_decoder_folder),
        str(tiny_data),
        task="text-generation",
        space="prune.neurons(fraction=0.25; recovery=none)",
        max_quality_drop=9.0,
        objective="latency",
        **BRIEF,
    )
    assert found.values["best"].chain == "prune.neurons(fraction=0.25; recovery=none)"
    assert names.PERPLEXITY in mlflow.get_run(found.run_id).data.metrics
