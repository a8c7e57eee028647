"""What every method in the table promises."""

import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import FrozenInstanceError, dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from annotated_types import Ge, Gt, Le, Lt

from mlflow_llmops.errors import ConfigError, ModelError
from mlflow_llmops.measure.likelihood import likelihoods
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods import table
from mlflow_llmops.methods.finetune.full import Full
from mlflow_llmops.methods.method import Method
from mlflow_llmops.models.scratch import small_encoder
from mlflow_llmops.models.scratch_decoder import small_decoder
from mlflow_llmops.models.text_model import TextModel

NAMES = table.names()
SMALLER_MODELS = {"student": "layers:1", "epochs": 1, "calibration_texts": 32}
"""Options that make an apply quick, for the methods that have them."""

RELOAD = """
import sys
from pathlib import Path
import numpy as np
from mlflow_llmops.measure.likelihood import likelihoods
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.models.load import load
model = load(sys.argv[1], sys.argv[4])
texts = Path(sys.argv[2]).read_text().splitlines()
generates = sys.argv[4] == "text-generation"
np.save(sys.argv[3], np.concatenate(likelihoods(model, texts).log) if generates else scorer_of(model).logits(texts))
print(*model.labels)
"""

RELOAD_WITHOUT_TORCH = """
import sys
from pathlib import Path
import numpy as np
from tokenizers import Tokenizer
from mlflow_llmops.batching.plan import TOKEN_BUDGET
from mlflow_llmops.batching.scorer import TextScorer
from mlflow_llmops.engines import open_engine
from mlflow_llmops.engines.artifact import TOKENIZER, ExportedArtifact
folder = Path(sys.argv[1])
about = ExportedArtifact.read(folder)
tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
engine = open_engine(about.kind, folder)
scorer = TextScorer(tokenizer, engine, about.max_length, about.pad_id, TOKEN_BUDGET[about.kind])
np.save(sys.argv[3], scorer.logits(Path(sys.argv[2]).read_text().splitlines()))
print(*about.labels)
if {"torch", "transformers"} & set(sys.modules): sys.exit("torch or transformers was imported")
"""


@dataclass(frozen=True)
class Applied:
    """A method's result, and how the model that it was given looked before."""

    method: Method
    given: TextModel
    before: TextModel
    result: TextModel
    folder: Path
    config: dict[str, Any]
    """That of the given model, before."""


@pytest.fixture(scope="module")
def given_by_task(tiny_texts) -> dict[str, TextModel]:
    """Wide enough that their weights, not their tokenizers and graphs, are what takes space."""
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 1024}
    untrained = (
        small_encoder(tiny_texts.train, tiny_texts.labels, vocabulary=300, **shape),
        small_decoder(tiny_texts.train, vocabulary=400, **shape),
    )
    method = Full(epochs=2, learning_rate=1e-3, batch_size=16, token_dropout=0)
    return {model.task: method.apply(model, tiny_texts, Path("unused")) for model in untrained}


@pytest.fixture(scope="module")
def given_to(given_by_task):
    """The model that a method is tried on: of the first task that it is for."""
    return lambda name: given_by_task[table.method_class(name).tasks[0]]


@pytest.fixture(scope="module")
def applied(given_to, tiny_texts, tmp_path_factory):
    """Each method, applied once and saved."""
    done: dict[str, Applied] = {}

    def once(name: str) -> Applied:
        if name not in done:
            known = [option.name for option in table.method_class(name).options()]
            method = table.build(name, {key: value for key, value in SMALLER_MODELS.items() if key in known})
            given = given_to(name)
            mine = given.with_net(deepcopy(given.network))
            before = given.with_net(deepcopy(given.network))
            folder = tmp_path_factory.mktemp(name)
            config = deepcopy(mine.network.config.to_dict())
            result = method.apply(mine, tiny_texts, folder, seed=3)
            if result.kind == "torch":
                result.save(folder)
            done[name] = Applied(method, mine, before, result, folder, config)
        return done[name]

    return once


def scored(model: TextModel, texts) -> np.ndarray:
    """Logits of labels, (texts, labels), or log probabilities of words, one after the other."""
    if model.task == "text-generation":
        return np.concatenate(likelihoods(model, texts).log)
    return scorer_of(model).logits(texts)


def disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def bad_values(annotated: Any) -> list[Any]:
    """A value of a wrong type, and one outside each bound."""
    annotation, *metadata = get_args(annotated)
    plain = [part for part in get_args(annotation) if part is not type(None)]
    kind = plain[0] if get_origin(annotation) in (UnionType, Union) else annotation
    bad: list[Any] = [["a", "list"]]
    if kind in (int, float, bool) or get_origin(kind) is Literal:
        bad.append("nonsense")
    if kind is float:
        bad += [float("nan"), float("inf"), "nan"]
    for bound in metadata:
        match bound:
            case Gt(gt=edge):
                bad += [edge, str(edge)]
            case Lt(lt=edge):
                bad += [edge, str(edge)]
            case Ge(ge=edge):
                bad.append(edge - 1)
            case Le(le=edge):
                bad.append(edge + 1)
    return bad


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_a_text_and_a_default_that_fits(name):
    cls = table.method_class(name)
    for option in cls.options():
        assert len(option.text.split()) >= 3, f"{option.name} says too little"
        assert getattr(cls(**{option.name: option.default}), option.name) == option.default
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}("), "a dataclass writes its signature where no text is given"


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_value_names_its_option(name):
    cls = table.method_class(name)
    hints = get_type_hints(cls, include_extras=True)
    for option in cls.options():
        for bad in bad_values(hints[option.name]):
            with pytest.raises(ConfigError) as raised:
                cls(**{option.name: bad})
            assert str(raised.value).startswith(f"{option.name}={bad!r}: "), f"{option.name} took {bad!r}"


@pytest.mark.parametrize("name", NAMES)
def test_strings_are_read_as_values(name):
    cls = table.method_class(name)
    written = {o.name: "auto" if o.default is None else str(o.default) for o in cls.options()}
    assert table.build(name, written) == cls()


@pytest.mark.parametrize("name", NAMES)
def test_a_method_does_not_change(name):
    method = table.build(name, {})
    with pytest.raises(FrozenInstanceError):
        method.epochs = 7  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_a_method_refuses_another_task_and_another_kind(name, given_to, tiny_texts, tmp_path):
    method, given = table.build(name, {}), given_to(name)
    method.check(given, tiny_texts)
    with pytest.raises(ModelError, match="not for task=summarization"):
        method.check(replace(given, task="summarization"), tiny_texts)
    with pytest.raises(ModelError, match="takes a torch model and this one is already onnx"):
        method.check(replace(given, net=None, kind="onnx", folder=tmp_path), tiny_texts)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_fixes_the_result(name, applied, tiny_texts, tmp_path):
    first = applied(name)
    torch.manual_seed(12345)  # what a caller did before must not matter
    np.random.seed(12345)
    again = first.method.apply(first.given, tiny_texts, tmp_path, seed=3)
    texts = tiny_texts.test.texts
    np.testing.assert_array_equal(scored(again, texts), scored(first.result, texts))


@pytest.mark.parametrize("name", NAMES)
def test_the_given_model_stays_as_it_was(name, applied, tiny_texts):
    done = applied(name)
    ours, before = done.given.network, done.before.network
    assert ours.state_dict().keys() == before.state_dict().keys()
    for key, value in before.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), f"{key} changed"
    assert ours.config.to_dict() == done.config
    for module_name, module in ours.named_modules():
        hooks = [
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        ]
        assert not any(hooks), f"a hook is left on {module_name}"
        assert "forward" not in vars(module), f"the forward of {module_name} is still patched"
    assert all(p.requires_grad and p.grad is None for p in ours.parameters())
    np.testing.assert_array_equal(scored(done.given, tiny_texts.dev.texts), scored(done.before, tiny_texts.dev.texts))
    assert done.given.encoder.to_str() == done.before.encoder.to_str()


@pytest.mark.parametrize("name", NAMES)
def test_the_result_is_of_the_promised_kind_and_answers_well(name, applied, tiny_texts):
    done = applied(name)
    assert done.result.kind in done.method.gives.split(" or ")
    assert done.result.labels == done.given.labels
    assert not done.result.fresh
    if done.result.task == "text-generation":
        guessing = -np.log(len(done.given.tokenizer))
        assert scored(done.result, tiny_texts.test.texts).mean() > 0.75 * guessing
        return
    truth = [done.given.labels.index(label) for label in tiny_texts.test.labels]
    assert np.mean(scored(done.result, tiny_texts.test.texts).argmax(1) == truth) > 0.6


@pytest.mark.parametrize("name", NAMES)
def test_the_size_moves_as_promised(name, applied, tmp_path):
    done = applied(name)
    done.before.with_net(deepcopy(done.before.network)).save(tmp_path)
    ratio = disk(done.folder) / disk(tmp_path)
    if done.method.smaller:
        assert ratio < 0.75
    else:
        assert 0.9 < ratio < 1.3


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_process_gives_the_same_outputs(name, applied, tiny_texts, tmp_path):
    done = applied(name)
    texts = [*tiny_texts.test.texts, "one", "rain " * 200, "unheard of: Ünïcode?"]
    (tmp_path / "texts").write_text("\n".join(texts))
    expected = scored(done.result, texts)
    for number, script in enumerate([RELOAD] if done.result.kind == "torch" else [RELOAD, RELOAD_WITHOUT_TORCH]):
        out = tmp_path / f"{number}.npy"
        command = [sys.executable, "-c", script, str(done.folder), str(tmp_path / "texts"), str(out), done.result.task]
        ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        assert ran.returncode == 0, ran.stderr
        assert tuple(ran.stdout.split()) == done.result.labels
        np.testing.assert_allclose(np.load(out), expected, atol=1e-5)


# the table


def test_an_unknown_method_names_the_near_ones():
    with pytest.raises(ConfigError, match=r"method prune\.neuron is not known; near ones: prune\.neurons"):
        table.build("prune.neuron", {})


def test_a_method_far_from_all_names_all():
    with pytest.raises(ConfigError, match="method xyzzy is not known; there are: finetune.full, .*export.onnx"):
        table.method_class("xyzzy")


def test_an_unknown_option_names_the_near_one():
    with pytest.raises(ConfigError, match="^fractoin: method prune.neurons has no such option; did you mean fraction"):
        table.build("prune.neurons", {"fractoin": 0.5})


def test_an_option_far_from_all_names_all():
    with pytest.raises(ConfigError, match="^zzz: .*it has: alpha, beta, tau"):
        table.build("distill.logits", {"zzz": 1})


def test_an_option_of_a_method_without_any_says_so():
    with pytest.raises(ConfigError, match="^zzz: method export.fastest has no such option; it has: none"):
        table.build("export.fastest", {"zzz": 1})


def test_names_can_be_those_of_one_verb():
    assert table.names("quantize") == tuple(name for name in NAMES if name.startswith("quantize."))
    assert {name.partition(".")[0] for name in NAMES} >= {
        "finetune",
        "distill",
        "prune",
        "quantize",
        "export",
    }
    assert table.names("no_such_verb") == ()


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("mlflow_llmops.methods.gone:Gone", ModuleNotFoundError),
        ("mlflow_llmops.methods.table:Gone", AttributeError),
    ],
)
def test_a_broken_line_is_an_error(monkeypatch, path, error):
    monkeypatch.setitem(table.METHODS, "prune.broken", path)
    table._paths.cache_clear()
    try:
        assert "prune.broken" in table.names("prune")
        with pytest.raises(error):
            table.method_class("prune.broken")
    finally:
        monkeypatch.undo()
        table._paths.cache_clear()
