"""Every command that the pages show is run, on small models: page by page, as a reader meets them."""

import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.cli import main
from mlflow_llmops.methods import table
from mlflow_llmops.models.scratch import small_encoder
from mlflow_llmops.models.scratch_decoder import small_decoder
from mlflow_llmops.registry import promotion
from mlflow_llmops.registry.versions import register
from mlflow_llmops.steps.parameters import parameters_of
from tests.conftest import sentences
from tests.test_readme import DOCS, README, commands_of, read

ROOT = Path(__file__).parent.parent
BRIEF = {
    "measure_seconds": "0.3",
    "speed_grid": "false",
    "epochs": "0.2",
    "control_seconds": "2",
    "trial_seconds": "0.2",
    "max_trials": "1",
}
"""What a reader leaves out, and takes longer than a test may."""
ELSEWHERE = {
    "mlflow-llmops serve": "serving/test_life.py",
    "mlflow run . --env-manager local -e serve": "serving/test_life.py",
    "mlflow deployments": "serving/test_deployments.py",
    "mlflow run . -b llmops-spark": "cluster/test_spark_backend.py",
    "mlflow run projects": "projects/test_projects.py",
    "mlflow run docker": "docker/test_files.py",
    "mlflow run . --env-manager local --experiment-name mine": "steps/test_main.py",
    "mlflow server": "docker/test_stack.py",
    "docker compose": "docker/test_files.py",
    "make": "../.ci/run",
}
"""Servers, clusters and whole jobs: beginnings of commands, and where each of them is run or, for docker, checked."""
WORDS = ("source ", "export ", "pip install ")
BOUNDED = {"promote", "search", "prune", "quantize", "benchmark", "compare"}
"""Verbs that may answer that a bound is not proven: on small data, and on a machine that others use."""


@pytest.fixture(scope="module")
def files(tiny_texts, tmp_path_factory) -> SimpleNamespace:
    """What a reader brings: an encoder deep enough for the cuts that the pages show, a decoder, labelled texts."""
    folder = tmp_path_factory.mktemp("pages")
    rows = sentences(900, seed=0)
    pd.DataFrame({"text": rows.texts, "label": rows.labels}).to_csv(folder / "mine.csv", index=False)
    pd.DataFrame({"text": rows.texts}).to_csv(folder / "texts.csv", index=False)
    shape = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    small_encoder(rows, tiny_texts.labels, vocabulary=300, num_hidden_layers=4, **shape).save(folder / "encoder")
    small_decoder(rows, vocabulary=300, num_hidden_layers=2, **shape).save(folder / "decoder")
    return SimpleNamespace(folder=folder, data=folder / "mine.csv", texts=folder / "texts.csv")


@pytest.fixture(scope="module")
def made(files, empty_database, tmp_path_factory) -> Path:
    """The store after a while: versions of two models, who held Production of them, and a run that compared."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copy(empty_database, folder / "mlflow.db")
    before = mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        use(folder, patch)
        brief = ["--measure-seconds", "0.3", "--epochs", "0.5"]
        mine, writer = ["--data", str(files.data), "--register-as", "mine"], ["--register-as", "writer"]
        called(["finetune", "--model", str(files.folder / "encoder"), *mine, *brief])
        small = ["--method", "int8_dynamic", "--speed-grid", "false", "--measure-seconds", "0.3"]
        called(["quantize", "--model", "models:/mine/1", *mine, *small])
        mlflow.set_experiment("writer")
        writing = ["--data", str(files.texts), "--task", "text-generation"]
        called(["finetune", "--model", str(files.folder / "decoder"), *writer, *writing, *brief])
        for name, more in {"mine": ("2", "1", "2"), "writer": ("1", "1")}.items():
            for version in more:
                register(MlflowClient().get_model_version(name, version).source, name, {})
            for version in ("1", "3"):
                promotion.promote(name, version, names.PRODUCTION, [], "run")
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(before)
    return folder / "mlflow.db"


def use(folder: Path, patch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    patch.chdir(folder)
    patch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.set_experiment("mine")


def called(words: list[str]) -> str:
    done = CliRunner().invoke(main, words)
    verb = words[0]
    accepted = {0, 3} if verb in BOUNDED else {0}
    assert done.exit_code in accepted, (words, done.output[-3000:], done.exception)
    return done.output


def words_of(command: str, files: SimpleNamespace, here: Path, url: str) -> list[str]:
    """The verb and its options, on what is there and brief."""
    for shown, ours in {
        "path/or/hub-id": str(files.folder / "encoder"),
        "/data/mine.csv": str(files.data),
        "builtin:decoder": str(files.folder / "decoder"),
        "builtin:docstrings": str(files.texts),
        "https://api.openai.com/v1": url,
        "spark://host:7077": "local[1]",
        "$PWD": str(here),
    }.items():
        command = command.replace(shown, ours)
    words = shlex.split(command)
    if words[0] == "mlflow":
        given = [word.partition("=") for before, word in pairwise(words) if before == "-P"]
        words = ["", words[words.index("-e") + 1], *(word for name, _, value in given for word in (f"--{name}", value))]
    verb, options = words[1], words[2:]
    given = dict(pairwise([*(option.removeprefix("--").replace("-", "_") for option in options), ""]))
    known = {parameter.name for parameter in parameters_of(verb) if parameter.annotation is not None}
    if "method" in known:
        default = next(each.default for each in parameters_of(verb) if each.name == "method")
        known |= {option.name for option in table.method_class(f"{verb}.{given.get('method', default)}").options()}
    brief = {name: value for name, value in BRIEF.items() if name in known and name not in given}
    brief |= {"time_budget_min": "0.5"} if "time_budget_min" in known else {}
    return [verb, *options, *(word for name, value in brief.items() for word in (f"--{name}", value))]


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.parametrize("page", [README, *DOCS], ids=lambda page: page.name)
def test_the_commands_of_a_page(page, files, made, store, openai_server, monkeypatch):
    if page != README:  # which begins with nothing
        shutil.copy(made, store / "mlflow.db")
    use(store, monkeypatch)
    for name, value in {"OPENAI_API_KEY": openai_server.key, "OPENAI_BASE_URL": openai_server.url}.items():
        monkeypatch.setenv(name, value)
    for name in ("LLMOPS_ANSWERS", "LLMOPS_WORK"):
        monkeypatch.setenv(name, str(store / name))
    openai_server.answer = lambda prompt: '{"label": "sea"}' if prompt.startswith("Name") else "sea"
    (store / "prompt.txt").write_text("Name the topic: {text}")
    (store / "label.json").write_text('{"type": "object", "properties": {"label": {"type": "string"}}}')
    (store / "docs").mkdir()
    (store / "docs" / "harbour.md").write_text("The harbour closes at nine.")
    pd.DataFrame({"id": [1, 2], "text": ["the boat", None]}).to_parquet(store / "rows.parquet")
    if "models:/asked/1" in read(page):
        options = f"--endpoint-model m --prompt @{store}/prompt.txt --schema @{store}/label.json --register-as asked"
        mlflow.set_experiment("asked")
        called(["register_openai", *options.split()])
        mlflow.set_experiment("mine")
    for command in commands_of(page):
        if command.startswith("mlflow db"):
            line = ["-m", *shlex.split(command.replace("$MLFLOW_TRACKING_URI", mlflow.get_tracking_uri()))]
            assert subprocess.run([sys.executable, *line]).returncode == 0
        if command.startswith((*ELSEWHERE, *WORDS, "mlflow db")):
            continue
        if "models:/mine@champion" in command and page == README:  # where the gate has refused the reader's version
            MlflowClient().set_registered_model_alias("mine", names.CHAMPION, "4")
        called(words_of(command, files, store, openai_server.url))


def test_what_is_run_elsewhere_is_run_there():
    shown = [command for page in (README, *DOCS) for command in commands_of(page)]
    for start, file in ELSEWHERE.items():
        assert any(command.startswith(start) for command in shown), f"no page shows {start} any more"
        assert (ROOT / "tests" / file).exists(), file
    own = re.compile(r"mlflow-llmops \w+ --|mlflow run \. --env-manager local -e \w+ -P")
    for command in shown:
        assert own.match(command) or command.startswith((*ELSEWHERE, *WORDS, "mlflow db")), f"nothing runs: {command}"
