"""Which chains a space holds: those that the table of kinds allows, each once, the cheap ones first."""

import pytest

from mlflow_llmops.errors import ConfigError
from mlflow_llmops.search.space import default_space, is_trained, read_space, said, sketch_of

LABELS = "text-classification"
CUT = "none | prune.layers(count=1; recovery=none) | prune.neurons(fraction=0.25)"


def chains(text: str, task: str = LABELS) -> list[str]:
    return [said(chain) for chain in read_space(text, task).chains]


def test_every_alternative_is_combined_and_a_lesson_without_a_cut_is_left_out():
    found = chains("none | prune.layers(count=1; recovery=none) > distill.logits(epochs=2) > none | export.onnx")
    cut = "prune.layers(count=1; recovery=none) > distill.logits(epochs=2.0)"
    assert sorted(found) == sorted(["export.onnx", cut, f"{cut} > export.onnx"])


def test_what_takes_a_network_does_not_follow_a_graph():
    found = chains("none | prune.heads(fit=export; recovery=none) | prune.heads(recovery=none) > export.onnx")
    assert sorted(found) == ["export.onnx", "prune.heads(recovery=none) > export.onnx"]


def test_a_student_of_its_own_is_taught_and_does_not_follow_a_cut():
    found = chains(f"{CUT} > distill.logits(student=shape:layers=1,width=16,heads=2; epochs=1)")
    assert found == ["distill.logits(student=shape:layers=1,width=16,heads=2; epochs=1.0)"]


def test_chains_without_training_come_first():
    trained = [is_trained(chain) for chain in read_space(f"{CUT} > none | quantize.int8_static", LABELS).chains]
    assert trained == sorted(trained)
    assert {True, False} == set(trained)


@pytest.mark.parametrize(
    ("written", "sketch"),
    [
        ("prune.layers(count=1; recovery=none) > distill.logits > export.onnx", "prune.layers(count=1; recovery=none)"),
        ("prune.neurons(fraction=0.25) > export.onnx", "prune.neurons(fraction=0.25; recovery=none)"),
        ("distill.logits(student=layers:1) > export.onnx", "distill.logits(student=layers:1; epochs=0.0)"),
        ("prune.vocabulary > export.onnx", "prune.vocabulary"),
    ],
)
def test_a_sketch_has_the_shape_and_no_training(written, sketch):
    (chain,) = read_space(written, LABELS).chains
    assert said(sketch_of(chain)) == f"{sketch} > export.onnx"
    assert not is_trained(sketch_of(chain))


@pytest.mark.parametrize(
    ("text", "said_of_it"),
    [
        ("prune.layer", "method prune.layer is not known; near ones: prune.layers"),
        ("prune.layers(cout=1)", "cout: method prune.layers has no such option; did you mean count"),
        ("prune.layers(count)", "'count' of 'prune.layers.count.' has no value"),
        ("prune.layers(count=0)", "count='0': input should be greater than or equal to 1"),
        ("none > ", "a step is empty"),
        ("none", "no chain fits"),
        ("export.onnx > prune.layers", "no chain fits"),
        ("export.compile", "measures a runtime and makes no model"),
        ("distill.on_policy(student=half)", "is for text-generation, not for task=text-classification"),
        ("what is this?", "cannot be read"),
    ],
)
def test_a_mistake_is_one_line(text, said_of_it):
    with pytest.raises(ConfigError, match=said_of_it):
        read_space(text, LABELS)


@pytest.mark.parametrize("task", [LABELS, "text-generation"])
@pytest.mark.parametrize("layers", [1, 2, 6, 12])
def test_the_default_space_is_one(task, layers):
    space = read_space(default_space(task, layers, 3.0), task)
    assert not is_trained(space.chains[0]) and is_trained(space.chains[-1])
    for chain in space.chains:
        assert [part.name for part in chain if part.teaches] or not any("recovery=none" in str(part) for part in chain)
