"""Files that are written by a program must be what that program writes today."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from mlflow.projects._project_spec import load_project

from mlflow_llmops import mlproject
from mlflow_llmops.methods import table
from mlflow_llmops.steps import STEPS
from mlflow_llmops.steps.parameters import parameters_of

ROOT = Path(__file__).parent.parent


def test_mlproject_is_not_stale():
    assert (ROOT / "MLproject").read_text(encoding="utf-8") == mlproject.text(), "run: make mlproject"
    assert (ROOT / "docker" / "MLproject").read_text(encoding="utf-8") == mlproject.text(docker=True)


@pytest.mark.parametrize("verb", STEPS)
def test_mlflow_reads_each_entry_point_and_fills_in_its_command(verb):
    entry = load_project(str(ROOT)).get_entry_point(verb)
    required = {parameter.name: "x" for parameter in parameters_of(verb) if parameter.default is None}
    command = entry.compute_command(required, None)
    assert command.startswith(f"python -m mlflow_llmops {verb} ")
    for parameter in parameters_of(verb):
        assert f"--{parameter.name} " in command


def test_every_method_has_a_verb_and_every_field_is_a_parameter():
    for name in table.names():
        verb = name.split(".")[0]
        offered = {parameter.name for parameter in parameters_of(verb)}
        assert {option.name for option in table.method_class(name).options()} <= offered


def test_the_project_folder_holds_mlproject():
    assert (mlproject.folder() / "MLproject").is_file()


@pytest.mark.slow
def test_the_wheel_holds_the_project(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = tmp_path.glob("mlflow_llmops-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("mlflow_llmops/project/MLproject").decode() == mlproject.text()
        assert not [name for name in archive.namelist() if name.startswith("tests")]
        archive.extractall(tmp_path / "installed")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    code = "from mlflow_llmops.mlproject import folder; import sys; sys.stdout.write(str(folder()))"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=True
    )
    assert printed.stdout == str(tmp_path / "installed" / "mlflow_llmops" / "project")
