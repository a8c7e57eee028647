"""What the README and the pages behind it show is what the package does."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from mlflow_llmops import names
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods import table
from mlflow_llmops.methods.method import Method

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", read(page), flags=re.DOTALL)


def commands_of(page: Path) -> list[str]:
    """In their order, without comments."""
    lines = [line.partition("  # ")[0].strip() for block in code_blocks(page, "bash") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    heads = re.findall(r"(?m)^#+ (.*)$", re.sub(r"```.*?```", "", read(page), flags=re.DOTALL))
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_method_in_the_readme_works(tiny_model, tiny_texts, tmp_path):
    source = next(block for block in code_blocks(README, "python") if "class Head" in block)
    body = source[source.index("@dataclass") :].strip().splitlines()
    assert len(body) <= 15
    space: dict = {"__name__": "head"}
    exec(source, space)
    head = space["Head"](epochs=1)
    assert isinstance(head, Method)
    probed = head.apply(tiny_model, tiny_texts, tmp_path)
    texts = tiny_texts.test.texts
    assert scorer_of(probed).logits(texts).shape == scorer_of(tiny_model).logits(texts).shape
    before, after = (model.network.base_model.state_dict() for model in (tiny_model, probed))
    assert all(before[name].equal(after[name]) for name in before)
    assert not tiny_model.network.classifier.weight.equal(probed.network.classifier.weight)


def test_every_method_stands_in_the_table_of_methods():
    rows = [line for line in read(README).splitlines() if line.startswith("| `")]
    for name in table.METHODS:
        assert any(f"`{name}`" in row for row in rows), name


@pytest.mark.parametrize("page", [README, *DOCS], ids=lambda page: page.name)
def test_every_make_target_and_option_of_a_command_exists(page):
    from mlflow_llmops.steps.parameters import parameters_of

    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`make ([\w-]+)", read(page))):
        assert f"\n{target}:" in makefile, target
    ours = re.compile(r"mlflow-llmops |mlflow run (?!projects/|docker )")  # those others: tests/projects
    for words in (command.split() for command in commands_of(page) if ours.match(command)):
        verb = words[words.index("-e") + 1] if "-e" in words else "main" if words[0] == "mlflow" else words[1]
        known = {parameter.name for parameter in parameters_of(verb)}
        given = [word.split("=")[0] for before, word in pairwise(words) if before == "-P"]
        if words[0] == "mlflow-llmops":
            given = [word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")]
        assert set(given) <= known, words


@pytest.mark.parametrize("page", [README, *DOCS], ids=lambda page: page.name)
def test_metric_names_that_a_page_quotes_are_stored_ones(page):
    stored = {value for value in vars(names).values() if isinstance(value, str)}
    for quoted in re.findall(r"`((?:quality|latency|ratio|throughput|memory|size)/\w+)`", read(page)):
        assert quoted in stored


@pytest.mark.parametrize("page", [README, *DOCS], ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", read(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_leads_to_every_page():
    assert {page.name for page in DOCS} == set(re.findall(r"\]\(docs/([\w-]+\.md)\)", read(README)))
