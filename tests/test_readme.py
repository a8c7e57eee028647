"""What the README shows is what the package does."""

import re
from itertools import pairwise
from pathlib import Path

from mlflow_llmops import names
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods import table
from mlflow_llmops.methods.method import Method

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_method_in_the_readme_works(tiny_model, tiny_texts, tmp_path):
    source = next(block for block in code_blocks("python") if "class Head" in block)
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
    rows = [line for line in README.splitlines() if line.startswith("| `")]
    for name in table.METHODS:
        assert any(f"`{name}`" in row for row in rows), name


def test_every_make_target_and_option_of_a_command_exists():
    from mlflow_llmops.steps.parameters import parameters_of

    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`?make (\w+)", README)):
        assert f"\n{target}:" in makefile, target
    commands = [line for block in code_blocks("bash") for line in block.splitlines()]
    ours = re.compile(r"mlflow-llmops |mlflow run (?!projects/|docker )")  # those others: tests/projects
    shown = [line.split() for line in commands if ours.match(line)]
    assert len(shown) >= 5
    for words in shown:
        verb = words[words.index("-e") + 1] if "-e" in words else "main" if words[0] == "mlflow" else words[1]
        known = {parameter.name for parameter in parameters_of(verb)}
        given = [word.split("=")[0] for before, word in pairwise(words) if before == "-P"]
        if words[0] == "mlflow-llmops":
            given = [word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")]
        assert set(given) <= known, words


def test_metric_names_that_the_readme_quotes_are_stored_ones():
    stored = {value for value in vars(names).values() if isinstance(value, str)}
    for quoted in re.findall(r"`((?:quality|latency|ratio|throughput|memory|size)/\w+)`", README):
        assert quoted in stored
