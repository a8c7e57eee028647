"""Each project as a user runs it: `mlflow run projects/<name> --env-manager local` against a store of its own."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.projects._project_spec import load_project
from mlflow.tracking import MlflowClient

import mlflow_llmops
from mlflow_llmops import names
from mlflow_llmops.flavors import exported_text
from mlflow_llmops.registry.versions import register
from mlflow_llmops.steps.parameters import declared, parameters_of
from tests.conftest import sentences
from tests.serving_process import free_port, post, process

ROOT = Path(__file__).parents[2]
PROJECTS = sorted(path.parent.name for path in (ROOT / "projects").glob("*/MLproject"))
SCRIPT = re.compile(r"python (\w+)\.py")


def project(store: Path, name: str) -> Path:
    """A copy in the folder of the test, since a project writes where it lies."""
    where = store / "projects" / name
    if not where.exists():
        shutil.copytree(ROOT / "projects" / name, where, ignore=shutil.ignore_patterns("build", "__pycache__"))
    return where


def command_of(uri: object, entry: str = "main", **given: object) -> list[str]:
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "run", str(uri), "--env-manager", "local", "-e", entry]
    return command + [word for name, value in given.items() for word in ("-P", f"{name}={value}")]


def environment() -> dict[str, str]:
    """`mlflow run` takes the first python of PATH; this checkout is the package whatever is installed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


def ran(uri: object, entry: str = "main", **given: object) -> str:
    """What it printed, whether it failed or not."""
    done = subprocess.run(
        command_of(uri, entry, **given), capture_output=True, text=True, env=environment(), timeout=500
    )
    said = f"{done.stdout}\n{done.stderr[-6000:]}\nexit code {done.returncode}"
    sys.stdout.write(said)
    return said


def module_of(name: str, script: str, monkeypatch: pytest.MonkeyPatch):
    folder = ROOT / "projects" / name
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location(script, folder / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_issues_six_are_there_and_each_says_what_it_shows():
    assert PROJECTS == [
        "classify_minilm_intents",
        "distill_from_api",
        "generate_tiny_docs",
        "nightly_regression",
        "rag_over_folder",
        "score_parquet_spark",
    ]
    for name in PROJECTS:
        text = (ROOT / "projects" / name / "README.md").read_text(encoding="utf-8")
        assert f"# {name}" in text
        assert "## Numbers" in text
        environment = yaml.safe_load((ROOT / "projects" / name / "python_env.yaml").read_text())
        [wanted] = environment["dependencies"]
        assert wanted.partition("==")[2] == mlflow_llmops.__version__


@pytest.mark.parametrize("name", PROJECTS)
def test_each_entry_point_gives_options_that_its_script_or_verb_has(name, monkeypatch):
    """With the same defaults, where the script has one."""
    entries = load_project(str(ROOT / "projects" / name))._entry_points
    for entry in entries.values():
        command = entry.compute_command({key: "x" for key, each in entry.parameters.items() if not each.default}, None)
        verb = re.search(r"-m mlflow_llmops (\w+)", command)
        if verb:
            known = {parameter.name: parameter.default for parameter in parameters_of(verb[1])}
        else:
            script = SCRIPT.search(command)[1]
            found = declared(getattr(module_of(name, script, monkeypatch), script))
            known = {parameter.name: parameter.default for parameter in found}
            for key, each in entry.parameters.items():
                assert known[key] is None or plain(each.default) == plain(known[key]), (entry.name, key)
        given = {word.replace("-", "_") for word in re.findall(r"--([\w-]+)", command)}
        assert given <= set(known), name
        assert given >= set(entry.parameters) or verb


def test_each_command_of_a_readme_names_what_is_there():
    """Project, entry point and parameters, or an option of the verb that is behind the entry point."""
    pages = [ROOT / "README.md", *(ROOT / "projects").rglob("README.md"), *(ROOT / "docker").glob("README.md")]
    lines = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    shown = [line.split() for line in lines if re.match(r"mlflow run (\S*#)?(projects/\w+|docker)\b", line)]
    assert len(shown) > 15
    for words in shown:
        entry = words[words.index("-e") + 1] if "-e" in words else "main"
        found = load_project(str(ROOT / words[2].rpartition("#")[2])).get_entry_point(entry)
        verb = re.search(r"-m mlflow_llmops (\w+)", found.command)
        known = {*found.parameters, *(each.name for each in (parameters_of(verb[1]) if verb else ()))}
        given = {word.split("=")[0] for before, word in pairwise(words) if before == "-P"}
        assert given <= known, words
        assert {name for name, each in found.parameters.items() if each.default is None} <= given, words


def test_the_command_that_tiny_docs_prints_is_its_readmes(monkeypatch):
    page = (ROOT / "projects" / "generate_tiny_docs" / "README.md").read_text(encoding="utf-8")
    assert f"\n{module_of('generate_tiny_docs', 'docs', monkeypatch).SERVE} -P model=models:/tiny-docs/4\n" in page


def blocks(page: str, language: str) -> list[str]:
    """The code of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def plain(default: str) -> str | float:
    """0.10 and 0.1 are one number, False and false one word."""
    try:
        return float(default)
    except ValueError:
        return default.lower()


@pytest.fixture(scope="module")
def topic_rows(tmp_path_factory):
    """Texts with labels in one file, for projects that take any."""
    found = sentences(700, seed=3)
    file = tmp_path_factory.mktemp("topics") / "topics.csv"
    pd.DataFrame({"text": found.texts, "label": found.labels}).to_csv(file, index=False)
    return file


@pytest.mark.slow
@pytest.mark.spark
def test_classify_minilm_intents(store, tiny_folder):
    options = {"methods": "quantize.int8_static", "set": "finetune.full.epochs=6", "measure_seconds": 2}
    where = project(store, "classify_minilm_intents")
    # a machine that others use too may prove no speed-up of a tiny model in two seconds
    said = ran(where, model=tiny_folder, max_quality_drop=0.2, min_speedup=0, **options)
    assert "exit code 0" in said, said
    rows = pd.read_csv(where / "build" / "intents.csv")
    assert rows["text"].is_unique and rows["label"].nunique() == 8
    champion = MlflowClient().get_model_version_by_alias("intents", names.CHAMPION)
    assert champion.tags[names.METHOD] == "quantize.int8_static"
    scored = pd.read_parquet(where / "build" / "scored.parquet")
    truth = rows.set_index("text")["label"]
    hits = [row.prediction["label"] == truth[row.text] for row in scored.itertuples()]
    assert sum(hits) / len(hits) > 0.5  # eight intents: 0.125 by chance


@pytest.mark.slow
def test_generate_tiny_docs(store, tiny_texts, capsys):
    documents = store / "documents"
    documents.mkdir()
    words = [text.replace(" ", "\n", 1) for text in (*tiny_texts.train.texts, *tiny_texts.dev.texts)]
    (documents / "a.txt").write_text("\n\n".join(words[:300]))
    (documents / "b.md").write_text("\n\n".join(words[300:]))
    where = project(store, "generate_tiny_docs")
    said = ran(where, documents=documents, epochs=2, measure_seconds=0.5, fraction=0.25)
    assert "exit code 0" in said, said
    capsys.readouterr()
    versions = {int(v.version): v for v in MlflowClient().search_model_versions("name = 'tiny-docs'")}
    made = [versions[i + 1].tags[names.METHOD] for i in range(4)]
    assert made == ["finetune.full", "prune.neurons", "distill.logits", "quantize.weight_only"]
    address = f"http://127.0.0.1:{(port := free_port())}"
    with process(command_of(where, "serve", port=port), f"{address}/ping", store / "serve.log", 120):
        answers = post(f"{address}/invocations", {"inputs": ["Return the"], "params": {"max_new_tokens": 20}})
        [shown] = blocks((ROOT / "projects" / "generate_tiny_docs" / "README.md").read_text(encoding="utf-8"), "python")
        assert ":5001/" in shown
        exec(shown.replace(":5001/", f":{port}/"), {})
    assert answers and answers[0]
    # the likeliest words, by both protocols; OpenAI's keeps the space before them
    assert capsys.readouterr().out.strip() == answers[0].strip()


@pytest.mark.slow
def test_a_project_of_a_git_uri_runs_from_a_clone_and_says_the_commit(store, git_uri):
    """A server on this machine, since MLflow takes the file:// address of a repository for a folder."""
    uri, commit = git_uri
    said = ran(f"{uri}#projects/nightly_regression", "tickets", count=40, file=store / "tickets.csv")
    assert "exit code 0" in said, said
    assert len(pd.read_csv(store / "tickets.csv")) == 40
    [run] = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.data.tags["mlflow.source.git.commit"] == commit
    assert not (ROOT / "projects" / "nightly_regression" / "tickets.csv").exists()


@pytest.fixture
def git_uri(store):
    """The checkout's projects as a bare repository behind git's own server, and the commit in it."""
    work = store / "checkout"
    ignored = shutil.ignore_patterns("build", "__pycache__")
    shutil.copytree(ROOT / "projects", work / "projects", ignore=ignored)
    who = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "projects"]):
        subprocess.run(["git", *words], cwd=work, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(store / "bare.git")], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=work, check=True, capture_output=True, text=True)
    port = free_port()
    command = ["git", "daemon", "--export-all", f"--base-path={store}", "--listen=127.0.0.1", f"--port={port}"]
    serving = subprocess.Popen([*command, str(store)], start_new_session=True)
    address = f"git://127.0.0.1:{port}/bare.git"
    try:
        while subprocess.run(["git", "ls-remote", address], capture_output=True, timeout=30).returncode:
            assert serving.poll() is None
            time.sleep(0.1)
        yield address, head.stdout.strip()
    finally:
        os.killpg(serving.pid, signal.SIGTERM)
        serving.wait(30)


@pytest.mark.slow
def test_distill_from_api(store, openai_server, topic_rows, tiny_folder):
    """The endpoint names the topic of a known text; nine in ten of its labels are right."""
    found = pd.read_csv(topic_rows).set_index("text")["label"]
    others = {"kitchen": "sea", "sea": "weather", "weather": "kitchen"}

    def answer(prompt: str) -> str:
        text = prompt.rpartition("Text:\n")[2]
        topic = found.get(text, "sea")
        return json.dumps({"label": others[topic] if len(text) % 10 == 0 else topic})

    openai_server.answer = answer
    given = {"endpoint_model": "m", "base_url": openai_server.url, "texts": topic_rows, "count": 400, "test_count": 60}
    # a machine that others use too may prove no speed-up in a second
    gate = {"max_quality_drop": 0.3, "min_speedup": 0}
    more = {"method": "int8_dynamic", "measure_seconds": 1, "model": tiny_folder, **gate}
    said = ran(project(store, "distill_from_api"), **given, **more)
    assert "exit code 0" in said, said
    versions = {int(v.version): v for v in MlflowClient().search_model_versions("name = 'labels'")}
    assert names.ENDPOINT in versions[1].tags
    champion = MlflowClient().get_model_version_by_alias("labels", names.CHAMPION)
    assert (int(champion.version), champion.tags[names.METHOD]) == (3, "quantize.int8_dynamic")
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    parent = next(run for run in runs if "label.count" in run.data.params)
    cost = {which: parent.data.metrics[f"{which}/{names.COST_PER_THOUSAND}"] for which in ("endpoint", "small")}
    assert cost["endpoint"] > cost["small"] > 0
    tests = [seen for seen in openai_server.seen if seen.prompt.rpartition("Text:\n")[2] in found.index]
    paid = sum(0.25 * len(s.prompt.split()) + 2.0 * len(answer(s.prompt).split()) for s in tests[-60:]) / 60e6 * 1000
    assert cost["endpoint"] == pytest.approx(paid)


@pytest.mark.slow
def test_distill_from_api_completes_texts(store, openai_server, topic_rows, monkeypatch):
    openai_server.answer = lambda prompt: "the old boat left the harbour"
    monkeypatch.chdir(project(store, "distill_from_api"))
    module = module_of("distill_from_api", "complete", monkeypatch)
    outcome = module.complete("m", openai_server.url, str(topic_rows), count=40, measure_seconds=0.3)
    assert outcome.values["link"].version == "2"
    assert len({seen.prompt for seen in openai_server.seen}) == 40


@pytest.mark.slow
def test_rag_over_folder(store, openai_server, monkeypatch):
    """The endpoint answers from the passages that it is given."""
    openai_server.answer = lambda prompt: "5 days" if "Up to 5 of them" in prompt else "unknown"
    where = project(store, "rag_over_folder")
    given = {"model": "openai:m", "embeddings": "openai:e", "base_url": openai_server.url, "top_k": 2}
    said = ran(where, **given)
    assert "exit code 0" in said, said
    address = f"http://127.0.0.1:{(port := free_port())}"
    with process(command_of(where, "serve", port=port), f"{address}/ping", store / "serve.log", 120):
        asked = post(f"{address}/invocations", {"inputs": ["How many days of leave may be taken in the next year?"]})
    assert asked[0]["answer"] == "5 days"
    assert "leave.md" in asked[0]["sources"]


@pytest.mark.slow
@pytest.mark.spark
def test_score_parquet_spark(store, tiny_exported, topic_rows):
    with mlflow.start_run():
        register(exported_text.log_model(tiny_exported.folder).model_uri, "topics", {})
    where = project(store, "score_parquet_spark")
    assert "exit code 0" in (said := ran(where, "rows", count=20000, texts=topic_rows)), said
    main = ran(where, model="models:/topics/1", checkpoint_rows=10000, master="local[1]")
    assert "20,000 rows scored" in main
    said = ran(where, "killed", model="models:/topics/1", checkpoint_rows=1000, master="local[1]")
    found = re.search(r"killed with ([\d,]+) of 20,000 rows finished; after the second job 20,000 rows are there", said)
    assert found, said
    assert 10_000 <= int(found[1].replace(",", "")) < 20_000
    before = re.search(r"20,000 rows scored .*, ([\d,]+) of them before", said)
    assert before and int(before[1].replace(",", "")) >= int(found[1].replace(",", ""))


def test_a_store_that_fails_is_no_first_night(store, monkeypatch):
    """Which would train and promote into another one's place."""
    module = module_of("nightly_regression", "nightly", monkeypatch)
    assert module._champion("tickets") is None
    MlflowClient().create_registered_model("tickets")
    assert module._champion("tickets") is None
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_registry_uri(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(MlflowException, match="Max retries"):
        module._champion("tickets")


@pytest.mark.slow
def test_nightly_regression(store, monkeypatch):
    """The first night makes a champion, the second finds it well, on the third the tickets have other words."""
    monkeypatch.chdir(store)
    tickets = module_of("nightly_regression", "tickets", monkeypatch).tickets
    module = module_of("nightly_regression", "nightly", monkeypatch)
    small = {"method": "int8_dynamic", "measure_seconds": 0.5, "max_quality_drop": 0.1, "min_speedup": 0.0}
    small |= {"model": "builtin:encoder", "epochs": 4.0}  # its vocabulary is made of the tickets
    tickets(night=1, count=900, file="night.csv")
    first = module.nightly(data="night.csv", **small)
    champion = MlflowClient().get_model_version_by_alias("tickets", names.CHAMPION)
    assert "first night" in str(first.shown[0]) and int(champion.version) == 2
    tickets(night=2, count=600, file="night.csv")
    module.nightly(data="night.csv", **small)
    assert int(MlflowClient().get_model_version_by_alias("tickets", names.CHAMPION).version) == 2

    tickets(night=3, count=900, shifted=True, file="night.csv")
    where = project(store, "nightly_regression")
    said = ran(where, data=store / "night.csv", **small)
    assert "it drifted, and version 4, trained on tonight's texts, has its place" in said
    assert "exit code 1" in said  # MLflow has one code for all that fails; the script's own is 5
    assert int(MlflowClient().get_model_version_by_alias("tickets", names.CHAMPION).version) == 4
    drifted = f"tags.`{names.VERDICT}` = 'drifted'"
    alarmed = mlflow.search_runs(search_all_experiments=True, filter_string=drifted, output_format="list")
    assert {run.info.status for run in alarmed} == {"FAILED"}
    assert module.Drifted.exit_code == 5
