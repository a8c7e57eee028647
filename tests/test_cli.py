"""The command line as a user meets it: help, bad input in one line with exit code 2, nothing registered."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import mlflow
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.cli import main
from mlflow_llmops.models.scratch import small_encoder
from mlflow_llmops.steps import STEPS

GOOD = "text,label\n" + "".join(f"the {word} is number {i},{word}\n" for i in range(60) for word in ("boat", "oven"))


def test_help_lists_every_verb_within_a_second():
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "mlflow_llmops", "--help"], capture_output=True, text=True, check=True
        )
        times.append(time.perf_counter() - start)
    assert min(times) < 1
    for verb in STEPS:
        assert f"\n  {verb} " in done.stdout


@pytest.mark.parametrize("verb", STEPS)
def test_each_verb_explains_its_options(verb):
    result = CliRunner().invoke(main, [verb, "--help"])
    assert result.exit_code == 0
    assert "--" in result.output


def test_project_prints_a_folder_with_mlproject():
    result = CliRunner().invoke(main, ["project"])
    assert os.path.isfile(os.path.join(result.output.strip(), "MLproject"))  # noqa: PTH113, PTH118


CASES = {
    "model not there": (["--model", "no/such-model"], "model=no/such-model is neither a folder"),
    "seed too large": (["--seed", "4294967296"], "seed='4294967296': input should be less than 4294967296"),
    "model folder empty": (["--model", "."], "holds no config.json"),
    "version not there": (["--model", "models:/nobody/1"], "model=models:/nobody/1 is not in the tracking store"),
    "path not there": (["--model", "/no/where", "--data", "nowhere.csv"], "model=/no/where: nothing lies at this path"),
    "version not there, data neither": (
        ["--model", "models:/nobody@champion", "--data", "nowhere.csv"],
        "model=models:/",
    ),
    "data missing": (["--data", "nowhere.csv"], "data=nowhere.csv: there is no such file"),
    "data empty": (["--data", "empty.csv"], "data=empty.csv: the file is empty"),
    "data not UTF-8": (["--data", "latin1.csv"], "data=latin1.csv: not UTF-8"),
    "no text column": (["--text-column", "body"], "text_column=body: good.csv has no such column; it has: text, label"),
    "no label column": (["--label-column", "y"], "label_column=y: good.csv has no such column; it has: text, label"),
    "one label": (["--data", "one.csv"], "one label only ('boat')"),
    "null texts": (["--data", "nulls.csv"], "2 of 120 rows of nulls.csv are null"),
    "unseen label": (["--eval-data", "unseen.csv"], "labels in the evaluation split that training never saw: car"),
    "unknown method": (["--method", "ful"], "method finetune.ful is not known; near ones: finetune.full"),
    "value out of range": (["--token-dropout", "1.5"], "token_dropout='1.5': input should be less than 1"),
    "value of another type": (["--seed", "many"], "seed='many': input should be a valid integer"),
    "unknown task": (["--task", "translation"], "task=translation is not known; choose one of: text-classification"),
    "task does not fit": (["--model", "images"], "model=images cannot be loaded for task=text-classification"),
    "family not known": (["--model", "strange"], "model=strange cannot be read"),
    "encoder that is to write": (["--task", "text-generation"], "its tokens see those that follow"),
    "overlap": (["--eval-data", "good.csv", "--overlap", "error"], "texts of the train split stand in the evaluation"),
    "bad name": (["--register-as", "a/b"], "register_as='a/b'"),
}


@pytest.fixture
def files(store, tiny_folder):
    (store / "good.csv").write_text(GOOD)
    (store / "empty.csv").write_text("")
    (store / "latin1.csv").write_bytes("text,label\ncaf\xe9,a\n".encode("latin-1"))
    (store / "one.csv").write_text(GOOD.replace(",oven", ",boat"))
    frame = pd.read_csv(store / "good.csv")
    frame.loc[[3, 4], "text"] = None
    frame.to_csv(store / "nulls.csv", index=False)
    (store / "unseen.csv").write_text("text,label\na car passes by,car\n")
    shutil.copytree(tiny_folder, store / "images")
    (store / "images" / "config.json").write_text('{"model_type": "vit"}')
    (store / "strange").mkdir()
    (store / "strange" / "config.json").write_text('{"model_type": "no-such-family"}')
    return store


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_exit_2_a_failed_run_and_no_version(files, tiny_folder, case, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # what the hub would say is no part of this
    arguments, message = CASES[case]
    given = {"--model": str(tiny_folder), "--data": "good.csv", "--register-as": "m"}
    given |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    result = CliRunner().invoke(main, ["finetune", *(part for pair in given.items() for part in pair)])
    assert result.exit_code == 2, result.output
    said = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1 and message in said[0], result.output
    assert MlflowClient().search_registered_models() == []
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    if case not in (
        "value of another type",
        "seed too large",
    ):  # the type of a step's own option is checked before there is a run
        assert [run.info.status for run in runs] == ["FAILED"]
        assert message in runs[0].data.tags[names.ERROR]


def test_an_undeclared_option_is_refused():
    result = CliRunner().invoke(main, ["prune", "--model", "x", "--fractoin", "0.3"])
    assert result.exit_code == 2
    assert "fraction" in result.output


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_registers_nothing(files, tiny_texts):
    """A limit on the size of a file fails a write as a full disk does: the store fits, the model does not."""
    torch.manual_seed(0)
    wide = {"hidden_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8, "intermediate_size": 1024}
    small_encoder(tiny_texts.train, ("boat", "oven"), vocabulary=300, **wide).save(files / "wide")
    room = 4 * (files / "mlflow.db").stat().st_size
    assert room < (files / "wide" / "model.safetensors").stat().st_size

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    command = [sys.executable, "-m", "mlflow_llmops", "prune", "--model", "wide", "--data", "good.csv"]
    command += ["--register-as", "m", "--recovery", "none"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Error: no room on the disk" in done.stderr
    assert MlflowClient().search_registered_models() == []
    failed = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert [run.info.status for run in failed] == ["FAILED"]


@pytest.mark.slow
def test_mlflow_run_passes_the_options_through_and_ends_failed_on_bad_input(files, tiny_folder, tiny_data):
    folder = CliRunner().invoke(main, ["project"]).output.strip()
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"  # noqa: PTH120
    command = ["mlflow", "run", folder, "--env-manager", "local", "-e", "export", "-P", f"model={tiny_folder}"]
    command += ["-P", f"data={tiny_data}", "-P", "measure_seconds=0.5"]
    environment = {**os.environ, "PATH": path}
    good = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert good.returncode == 0, good.stderr[-2000:]
    bad = subprocess.run([*command, "-P", "method=openvin"], capture_output=True, text=True, env=environment)
    assert bad.returncode != 0
    assert "method export.openvin is not known; near ones: export.openvino" in bad.stderr
    failed, finished = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert (failed.info.status, finished.info.status) == ("FAILED", "FINISHED")
    assert finished.data.params["method"] == "openvino"  # as `mlflow run` logs it
    assert finished.data.params["export.model"] == str(tiny_folder)  # as we do
    assert finished.data.metrics[names.SPEEDUP] > 0
    assert names.HARDWARE in finished.data.tags


def test_a_store_that_the_project_does_not_see_is_told(files, tiny_folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")
    result = CliRunner().invoke(main, ["export", "--model", str(tiny_folder), "--data", "good.csv"])
    assert result.exit_code == 2
    assert "set MLFLOW_TRACKING_URI to an absolute path" in result.output


@pytest.mark.slow
def test_a_job_that_a_scheduler_ends_says_so(files, tiny_folder, tiny_data):
    command = [sys.executable, "-m", "mlflow_llmops", "export", "--model", str(tiny_folder), "--data", str(tiny_data)]
    process = subprocess.Popen([*command, "--measure-seconds", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not mlflow.search_runs(search_all_experiments=True, output_format="list"):
        assert process.poll() is None
        time.sleep(0.2)
    time.sleep(2)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.info.status == "FAILED"


SCRIPT = """
from typing import Annotated
from annotated_types import Ge
from mlflow_llmops.errors import GateFailed
from mlflow_llmops.script import Outcome, script

def mine(count: Annotated[int, "how many", Ge(1)], name: Annotated[str | None, "whose"] = None) -> Outcome:
    "Count what there is."
    if count > 5:
        raise GateFailed("too many")
    return Outcome("", (f"{count} of {name}",))

script(mine)()
"""


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["--count", "3"], 0, "3 of None"),
        (["--count", "3", "--name", "auto"], 0, "3 of None"),
        (["--count", "0"], 2, "Error: count='0': input should be greater than or equal to 1"),
        (["--count", "9"], 3, "Error: too many"),
        ([], 2, "Missing option '--count'"),
        (["--help"], 0, "how many"),
    ],
)
def test_a_function_of_ones_own_is_a_command_as_the_verbs_are(given, code, said, tmp_path):
    (tmp_path / "mine.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(tmp_path / "mine.py"), *given], capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert said in done.stdout + done.stderr
