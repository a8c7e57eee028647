"""What the pages beside the README show is what is there: links, commands, options, code."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlflow_llmops.steps import STEPS
from mlflow_llmops.steps.parameters import parameters_of

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [
        ROOT / "CHANGELOG.md",
        *(page for room in ("projects", "docker", "benchmarks") for page in (ROOT / room).rglob("*.md")),
    ]
)
PROGRAMS = {"mlflow", "mlflow-llmops", "make", "python", "pip", "curl", "docker", "kubectl", "cp", "sed", "export"}
OPTION = re.compile(r"--([a-z][\w-]+)")
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pages
def test_links_lead_somewhere_and_every_make_target_is_one(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shown = [*re.findall(r"`make (\w[\w-]*)", text), *re.findall(r"^make (\w[\w-]*)", text, re.MULTILINE)]
    assert all(f"\n{target}:" in makefile for target in shown), shown


@pages
def test_each_line_of_a_shell_block_is_read_by_the_shell_and_calls_a_program_that_is_named(page):
    for block in blocks(page.read_text(encoding="utf-8"), "bash"):
        read = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert read.returncode == 0, read.stderr
        for line in filter(None, block.splitlines()):
            assert shlex.split(line, comments=True)[0] in PROGRAMS, line


@pages
def test_each_command_of_ours_has_its_verb_and_its_options(page):
    """Those of `mlflow run` are looked at in tests/projects."""
    lines = "\n".join(blocks(page.read_text(encoding="utf-8"), "bash")).splitlines()
    for line in lines:
        found = re.search(r"\bmlflow-llmops ([a-z]\w*)(.*)", line)
        if found and not line.startswith("docker build"):
            assert found[1] in STEPS, line
            known = {parameter.name for parameter in parameters_of(found[1])}
            assert {option.replace("-", "_") for option in OPTION.findall(found[2])} <= known, line


@pages
def test_each_script_is_there_and_takes_the_options_it_is_shown_with(page):
    text = page.read_text(encoding="utf-8")
    for script, given in re.findall(r"\bpython ([\w/]+\.py)((?: --[\w-]+ \S+)*)", text):
        file = next((found for found in (ROOT / script, page.parent / script) if found.exists()), None)
        assert file, script
        source = file.read_text(encoding="utf-8")
        for option in OPTION.findall(given):
            assert f'"--{option}"' in source or f"{option.replace('-', '_')}:" in source, (script, option)


def test_each_benchmark_that_has_a_section_is_there_with_the_options_that_it_names():
    """The others of a section may be a verb's."""
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## `(\w+\.py)`(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE)
    assert len(sections) >= 12
    verbs = {parameter.name for verb in ("distill", "quantize", "serve") for parameter in parameters_of(verb)}
    for script, said in sections:
        source = (ROOT / "benchmarks" / script).read_text(encoding="utf-8")
        for option in set(re.findall(r"`--([a-z][\w-]+)", said)):
            assert f'"--{option}"' in source or option.replace("-", "_") in verbs, (script, option)


def test_the_project_of_ones_own_is_a_command():
    [code] = blocks((ROOT / "projects" / "README.md").read_text(encoding="utf-8"), "python")
    space: dict = {"__name__": "mine"}
    exec(code, space)
    shown = CliRunner().invoke(space["script"](space["mine"]), ["--help"]).output
    assert all(
        word in shown for word in ("Train and quantize a model of my own", "--data", "--epochs", "labelled texts")
    )
