"""The student's hidden states move towards the teacher's, and nothing of that stays behind."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from mlflow_llmops.errors import ConfigError
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods import _train
from mlflow_llmops.methods._losses import label_loss, total
from mlflow_llmops.methods._rows import collate, rows_of
from mlflow_llmops.methods.distill import hidden
from mlflow_llmops.methods.distill._layers import layer_pairs
from mlflow_llmops.methods.distill._watched import watched
from mlflow_llmops.methods.distill.hidden import Hidden, hidden_loss, projection

NOWHERE = Path("unused")
PAIRS = [(1, 2), (2, 4)]
LENGTHS = (5, 3, 1, 4)


def states(layers: int, width: int, seed: int) -> list[torch.Tensor]:
    """Hidden states of four texts of at most five tokens, the embeddings' output first."""
    random = np.random.default_rng(seed)
    return [torch.from_numpy(random.normal(0, 2, (4, 5, width))).requires_grad_() for _ in range(layers + 1)]


def batch_of() -> dict[str, torch.Tensor]:
    mask = torch.tensor([[1] * length + [0] * (5 - length) for length in LENGTHS])
    return {"attention_mask": mask, "labels": torch.tensor([0, 1, 2, 1])}


def outputs_of(ours: list[torch.Tensor]) -> SequenceClassifierOutput:
    logits = torch.from_numpy(np.random.default_rng(9).normal(size=(len(ours[0]), 3)))
    return SequenceClassifierOutput(logits=logits, hidden_states=tuple(ours))


def loss_of(theirs: list[torch.Tensor], distance: str, bridge=None, pairs=PAIRS, gamma: float = 2.0):
    return hidden_loss(label_loss, lambda batch: {"hidden_states": theirs}, pairs, distance, gamma, bridge)


def bridge_of(ours: int, theirs: int) -> nn.ModuleDict:
    return projection(ours, theirs, [(0, 0), *PAIRS], seed=0).double()


def weights_of(bridge: nn.ModuleDict | None, layer: int) -> np.ndarray | None:
    return None if bridge is None else bridge["layers" if layer else "embeddings"].weight.detach().numpy()


def written_out(ours, theirs, distance: str, bridge, pairs) -> float:
    """The formula, token by token."""
    layers = []
    for i, j in pairs:
        tokens = []
        for text, length in enumerate(LENGTHS):
            for token in range(length):
                x, y = ours[i].detach().numpy()[text, token], theirs[j].detach().numpy()[text, token]
                x = x if bridge is None else weights_of(bridge, i) @ x
                cosine = x @ y / np.sqrt((x @ x) * (y @ y))
                tokens.append(1 - cosine if distance == "cosine" else np.mean((x - y) ** 2))
        layers.append(np.mean(tokens))
    return float(np.mean(layers))


@pytest.mark.parametrize("width", [6, 9])
@pytest.mark.parametrize("distance", ["cosine", "mse"])
@pytest.mark.parametrize("pairs", [PAIRS, [(0, 0), (1, 4)]])
def test_the_loss_is_the_written_formula(width, distance, pairs):
    ours, theirs = states(2, 6, 0), states(4, width, 1)
    bridge = None if width == 6 else bridge_of(6, width)
    terms = loss_of(theirs, distance, bridge, pairs)(outputs_of(ours), batch_of())
    assert list(terms) == ["label", "hidden"]
    assert terms["hidden"][0] == 2.0
    assert terms["hidden"][1].item() == pytest.approx(written_out(ours, theirs, distance, bridge, pairs), rel=1e-12)
    expected = terms["label"][1].item() + 2 * terms["hidden"][1].item()
    assert total(terms).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("width", [6, 9])
@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_the_gradient_is_the_written_one(width, distance):
    ours, theirs = states(2, 6, 0), states(4, width, 1)
    bridge = None if width == 6 else bridge_of(6, width)
    _, value = loss_of(theirs, distance, bridge)(outputs_of(ours), batch_of())["hidden"]
    value.backward()
    count = sum(LENGTHS) * len(PAIRS)
    into_weights = np.zeros((width, 6))
    for i, j in PAIRS:
        x, y = ours[i].detach().numpy(), theirs[j].detach().numpy()
        w = weights_of(bridge, i) if bridge is not None else np.eye(6)
        p = x @ w.T
        if distance == "cosine":
            norm, other = (np.linalg.norm(each, axis=-1, keepdims=True) for each in (p, y))
            cosine = (p * y).sum(-1, keepdims=True) / norm / other
            slope = -(y / other - cosine * p / norm) / norm / count
        else:
            slope = 2 * (p - y) / width / count
        slope = slope * batch_of()["attention_mask"].numpy()[..., None]
        into_weights += np.einsum("bto,bti->oi", slope, x)
        np.testing.assert_allclose(ours[i].grad.numpy(), slope @ w, atol=1e-12)
    if bridge is not None:
        np.testing.assert_allclose(bridge["layers"].weight.grad.numpy(), into_weights, atol=1e-12)
        assert bridge["embeddings"].weight.grad is None, "embeddings are not compared here"


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_padding_does_not_count(distance):
    ours, theirs, batch = states(2, 6, 0), states(4, 6, 1), batch_of()
    before = loss_of(theirs, distance)(outputs_of(ours), batch)["hidden"][1].item()
    changed = [[each.detach().clone() for each in some] for some in (ours, theirs)]
    for each in (*changed[0], *changed[1]):
        each[batch["attention_mask"] == 0] = 1e6
    assert loss_of(changed[1], distance)(outputs_of(changed[0]), batch)["hidden"][1].item() == before
    wider = [[nn.functional.pad(each, (0, 0, 0, 3)) for each in some] for some in changed]
    batch["attention_mask"] = nn.functional.pad(batch["attention_mask"], (0, 3))
    assert loss_of(wider[1], distance)(outputs_of(wider[0]), batch)["hidden"][1].item() == before


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_the_whole_is_the_mean_of_two_halves_by_their_tokens(distance):
    ours, theirs, batch = states(2, 6, 0), states(4, 6, 1), batch_of()
    whole = loss_of(theirs, distance)(outputs_of(ours), batch)["hidden"][1].item()
    weighted = 0.0
    for part in (slice(0, 2), slice(2, 4)):
        half = {name: value[part] for name, value in batch.items()}
        loss = loss_of([each[part] for each in theirs], distance)
        value = loss(outputs_of([each[part] for each in ours]), half)["hidden"][1].item()
        weighted += value * sum(LENGTHS[part]) / sum(LENGTHS)
    assert whole == pytest.approx(weighted, rel=1e-12)


def test_the_same_states_have_no_distance():
    ours = states(2, 6, 0)
    for distance in ("cosine", "mse"):
        loss = loss_of(ours, distance, pairs=[(0, 0), (1, 1), (2, 2)])
        assert loss(outputs_of(ours), batch_of())["hidden"][1].item() == pytest.approx(0, abs=1e-12)


# which layer learns from which


@pytest.mark.parametrize(
    ("layers", "student", "teacher", "pairs"),
    [
        ("even", 4, 12, [(1, 3), (2, 6), (3, 9), (4, 12)]),
        ("even", 6, 12, [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (6, 12)]),
        ("even", 3, 4, [(1, 1), (2, 3), (3, 4)]),
        ("even", 1, 2, [(1, 2)]),
        ("even", 4, 1, [(1, 1), (2, 1), (3, 1), (4, 1)]),
        ("last", 3, 12, [(3, 12)]),
        ("1:2,3:7", 3, 7, [(1, 2), (3, 7)]),
        ("0:0", 3, 7, [(0, 0)]),
    ],
)
def test_layers_are_paired(layers, student, teacher, pairs):
    assert layer_pairs(layers, student, teacher) == pairs
    with_embeddings = pairs if (0, 0) in pairs else [(0, 0), *pairs]
    assert layer_pairs(layers, student, teacher, embeddings=True) == with_embeddings


@pytest.mark.parametrize("layers", ["", "uniform", "1", "1:", "1:2,", "1:2;2:4", "-1:2", "1:²", "a:b"])
def test_a_layer_map_that_cannot_be_read_is_refused_when_built(layers):
    with pytest.raises(ConfigError, match=r"^layers=.* cannot be read; write even, last, or pairs"):
        Hidden(layers=layers)


@pytest.mark.parametrize("layers", ["2:2", "1:3"])
def test_a_layer_that_is_not_there_is_refused(tiny_model, tiny_texts, layers):
    with pytest.raises(ConfigError, match=r"^layers=.*: no .* here; the student has 1 layers, its teacher 2"):
        Hidden(student="layers:1", layers=layers).apply(tiny_model, tiny_texts, NOWHERE)


# the method


def batch_for(model, texts):
    return collate(rows_of(model, texts), model)


def test_the_teacher_is_asked_about_the_tokens_before_any_was_hidden(tiny_model, tiny_texts):
    batch = batch_for(tiny_model, tiny_texts.dev)
    with torch.no_grad():
        expected = deepcopy(tiny_model.network)(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True
        ).hidden_states
    hidden_ones = {**batch, "input_ids": torch.full_like(batch["input_ids"], tiny_model.tokenizer.mask_token_id)}
    teacher = tiny_model.with_net(deepcopy(tiny_model.network).train())
    for module in teacher.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5  # what training mode would show
    with watched(teacher, "hidden_states") as watch:
        seen = watch(hidden_ones)["hidden_states"]
    assert len(seen) == 3
    for ours, theirs in zip(seen, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert not ours.requires_grad


def nothing_left(net) -> bool:
    hooks = [module._forward_hooks or module._forward_pre_hooks for module in net.modules()]
    return not any(hooks) and not hasattr(net, _train.ALONG) and not hasattr(net, "_output_capturing_hooks_installed")


@pytest.mark.parametrize("student", ["layers:1", "shape:layers=1,width=16,heads=2"])
def test_nothing_of_the_training_stays_behind(tiny_model, tiny_texts, student):
    teacher = tiny_model.with_net(deepcopy(tiny_model.network))
    before = deepcopy(teacher.network.state_dict())
    trained = Hidden(student=student, embeddings=True, epochs=0.5).apply(teacher, tiny_texts, NOWHERE, 0)
    assert nothing_left(teacher.network)
    assert nothing_left(trained.network)
    assert all(torch.equal(before[name], weight) for name, weight in teacher.network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in teacher.network.parameters())
    assert trained.network.state_dict().keys() == type(trained.network)(trained.network.config).state_dict().keys()
    inputs = {name: batch_for(trained, tiny_texts.dev)[name] for name in ("input_ids", "attention_mask")}
    assert len(trained.network(**inputs, output_hidden_states=True).hidden_states) == 2, (
        "hooks come again when asked for"
    )


def test_the_projection_is_trained_with_the_student(tiny_model, tiny_texts, monkeypatch):
    bridges = []

    def spy(*args):
        bridges.append((bridge := projection(*args), deepcopy(bridge)))
        return bridge

    monkeypatch.setattr(hidden, "projection", spy)
    Hidden(student="shape:width=16,heads=2", embeddings=True, epochs=0.5).apply(tiny_model, tiny_texts, NOWHERE)
    [(after, before)] = bridges
    assert list(after) == ["embeddings", "layers"]
    assert not any(torch.equal(after[name].weight, before[name].weight) for name in after)


def test_nothing_stays_behind_where_training_fails(tiny_model, tiny_texts, monkeypatch):
    nets = []

    def fail(model, rows, schedule, loss, *args, **kwargs):
        batch = collate(rows[:4], model)
        outputs = model.network(batch["input_ids"], batch["attention_mask"], output_hidden_states=True)
        loss(outputs, batch)
        nets.append(model.network)
        raise MemoryError

    monkeypatch.setattr(hidden, "train", fail)
    teacher = tiny_model.with_net(deepcopy(tiny_model.network))
    with pytest.raises(MemoryError):
        Hidden(student="layers:1").apply(teacher, tiny_texts, NOWHERE)
    assert nothing_left(teacher.network)
    assert nothing_left(nets[0])


@pytest.mark.parametrize("student", ["layers:1", "shape:layers=1,width=16,heads=2"])
def test_a_seed_fixes_the_result(tiny_model, tiny_texts, student):
    method = Hidden(student=student, epochs=1, batch_size=64)
    first, again, other = (
        scorer_of(method.apply(tiny_model, tiny_texts, NOWHERE, seed)).logits(tiny_texts.dev.texts)
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def last_states(model, texts) -> np.ndarray:
    """Of all real tokens, (tokens, width)."""
    batch = batch_for(model, texts)
    with torch.no_grad():
        outputs = model.network.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return outputs[0][batch["attention_mask"].bool()].numpy()


def unexplained(model, teacher, texts) -> float:
    """The share of the teacher's last states that no linear map of the student's gives."""
    x, y = last_states(model, texts), last_states(teacher, texts)
    x = np.concatenate([x, np.ones((len(x), 1), dtype=x.dtype)], axis=1)
    error = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float((error**2).sum() / ((y - y.mean(0)) ** 2).sum())


def cosine_distance(model, teacher, texts) -> float:
    x, y = last_states(model, texts), last_states(teacher, texts)
    return float(1 - ((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)).mean())


@pytest.mark.parametrize(
    ("student", "distance"), [("layers:1", cosine_distance), ("shape:layers=1,width=16,heads=2", unexplained)]
)
def test_a_large_gamma_brings_the_states_nearer_to_the_teachers(tiny_model, tiny_texts, student, distance):
    far, near = (
        Hidden(student=student, gamma=gamma, epochs=3, batch_size=16, token_dropout=0, learning_rate=1e-2).apply(
            tiny_model, tiny_texts, NOWHERE, 1
        )
        for gamma in (0.0, 20.0)
    )
    assert distance(near, tiny_model, tiny_texts.test) < 0.8 * distance(far, tiny_model, tiny_texts.test)


def test_a_causal_student_comes_nearer_too(tiny_decoder, tiny_texts):
    far, near = (
        Hidden(student="layers:1", gamma=gamma, epochs=2, batch_size=16).apply(tiny_decoder, tiny_texts, NOWHERE, 1)
        for gamma in (0.0, 20.0)
    )
    assert cosine_distance(near, tiny_decoder, tiny_texts.test) < cosine_distance(far, tiny_decoder, tiny_texts.test)


def test_auto_is_cosine_where_widths_are_equal_and_a_projection_elsewhere(tiny_model, tiny_texts):
    def trained(**options) -> np.ndarray:
        model = Hidden(epochs=0.5, batch_size=64, **options).apply(tiny_model, tiny_texts, NOWHERE)
        return scorer_of(model).logits(tiny_texts.dev.texts)

    for student, same, other in [("layers:1", "cosine", "mse"), ("shape:width=16,heads=2", "mse", "cosine")]:
        auto = trained(student=student)
        np.testing.assert_array_equal(auto, trained(student=student, match=same))
        assert not np.array_equal(auto, trained(student=student, match=other))


def test_the_states_of_efficient_architectures_are_compared(tiny_model, tiny_texts):
    for student in ("albert:width=64,layers=2", "mobilebert:width=64,layers=2", "distilbert:width=32,layers=2"):
        trained = Hidden(student=student, embeddings=True, epochs=0.1).apply(tiny_model, tiny_texts, NOWHERE)
        assert np.isfinite(scorer_of(trained).logits(tiny_texts.dev.texts)).all()
