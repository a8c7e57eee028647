"""What every pruning method shares: recovery, rounds, the control from random weights, scores that are kept."""

from pathlib import Path
from shutil import copytree

import pytest
import torch

from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.errors import ConfigError, DataError
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods._session import Session, session
from mlflow_llmops.methods.prune._pruning import with_random_weights
from mlflow_llmops.methods.prune._recovery import adapted
from mlflow_llmops.methods.prune.heads import Heads
from mlflow_llmops.methods.prune.neurons import Neurons
from mlflow_llmops.steps._generation import held

NOWHERE = Path("unused")


def loss_on(model, texts) -> float:
    numbers = torch.tensor([model.labels.index(label) for label in texts.labels])
    return torch.nn.functional.cross_entropy(torch.from_numpy(scorer_of(model).logits(texts.texts)), numbers).item()


@pytest.mark.parametrize("recovery", ["distill", "full", "lora"])
def test_every_recovery_wins_quality_back_and_leaves_a_plain_network(tiny_model, tiny_texts, recovery):
    options = {"importance": "random", "batch_size": 16, "epochs": 2, "token_dropout": 0}
    without, recovered = (
        Neurons(fraction=0.85, recovery=how, **options).apply(tiny_model, tiny_texts, NOWHERE)
        for how in ("none", recovery)
    )
    assert loss_on(recovered, tiny_texts.train) < loss_on(without, tiny_texts.train)
    expected, got = without.network.state_dict(), recovered.network.state_dict()
    assert {name: tensor.shape for name, tensor in got.items()} == {name: t.shape for name, t in expected.items()}
    assert not hasattr(recovered.network, "peft_config")
    assert all(parameter.requires_grad for parameter in recovered.network.parameters())


@pytest.mark.parametrize("recovery", ["distill", "full", "lora"])
def test_a_causal_model_recovers_too(tiny_decoder, tiny_texts, recovery):
    """By the log-likelihood of a token of texts that no training saw."""
    options = {"fraction": 0.5, "importance": "random", "batch_size": 16, "token_dropout": 0, "learning_rate": 3e-3}
    without, recovered = (
        Heads(recovery=how, **options).apply(tiny_decoder, tiny_texts, NOWHERE) for how in ("none", recovery)
    )
    assert held(recovered, tiny_texts.test) > held(without, tiny_texts.test)


@pytest.mark.parametrize("kind", ["tiny_model", "tiny_decoder"])
def test_adapters_train_no_weight_of_the_network_and_are_merged(request, kind):
    net = request.getfixturevalue(kind).network
    copy = with_random_weights(net, 0)
    copy.load_state_dict(net.state_dict())
    ids = torch.arange(5, 15).reshape(2, 5)
    before = copy(input_ids=ids).logits
    with adapted(copy, rank=2, seed=0):
        trained = [name for name, parameter in copy.named_parameters() if parameter.requires_grad]
        assert trained and all("lora_" in name for name in trained)
        torch.testing.assert_close(copy(input_ids=ids).logits, before)
        with torch.no_grad():
            for name, parameter in copy.named_parameters():
                if "lora_B" in name:
                    parameter.add_(0.1)
        moved = copy(input_ids=ids).logits
    assert (moved - before).abs().max() > 1e-3
    torch.testing.assert_close(copy(input_ids=ids).logits, moved)
    assert copy.state_dict().keys() == net.state_dict().keys()


def test_a_cut_in_rounds_ends_at_the_same_size_and_trains_after_each(tiny_model, tiny_texts):
    seen: list[tuple[str, int]] = []
    offered = Session(record=lambda metrics, step: seen.append((next(iter(metrics)).partition("/")[0], step)))
    method = Neurons(fraction=0.75, rounds=3, batch_size=16, epochs=3)
    with session(offered):
        made = method.apply(tiny_model, tiny_texts, NOWHERE)
    assert made.network.config.intermediate_size == 16
    assert {stage for stage, _ in seen} == {"recover_1", "recover_2", "recover"}
    last = {stage: max(step for each, step in seen if each == stage) for stage, _ in seen}
    assert len(set(last.values())) == 1, "each round has its share of the epochs"


def test_above_a_third_rounds_are_advised_before_the_work(tiny_model):
    assert Neurons(fraction=0.3).notes(tiny_model) == ()
    assert Neurons(fraction=0.5, rounds=2).notes(tiny_model) == ()
    assert "rounds=2 or more" in Neurons(fraction=0.5).notes(tiny_model)[0]


def test_the_control_has_the_shape_and_none_of_the_weights(tiny_model, tiny_texts):
    method = Neurons(fraction=0.5, batch_size=16, control="from_scratch")
    pruned, control = method.pruned(tiny_model, tiny_texts), method.from_scratch(tiny_model, tiny_texts)
    ours, rivals = pruned.network.state_dict(), control.network.state_dict()
    assert {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in rivals.items()}
    assert not control.fresh
    weight = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.corrcoef(torch.stack([ours[weight].flatten(), rivals[weight].flatten()]))[0, 1].abs() < 0.15
    assert loss_on(control, tiny_texts.test) > loss_on(pruned, tiny_texts.test)


def test_scores_are_kept_and_serve_another_fraction(tiny_model, tiny_texts, tmp_path, monkeypatch):
    kept: list[str] = []

    def keep(key, folder):
        kept.append(key)
        copytree(folder, tmp_path / key)

    memory = Session(recall=lambda key: tmp_path / key if (tmp_path / key).exists() else None, keep=keep)
    options = {"importance": "taylor", "recovery": "none"}
    expected = Neurons(fraction=0.25, **options).apply(tiny_model, tiny_texts, NOWHERE)
    with session(memory):
        Neurons(fraction=0.5, **options).apply(tiny_model, tiny_texts, NOWHERE)
        monkeypatch.setattr(Neurons, "scores", None)  # it must not be asked again
        again = Neurons(fraction=0.25, **options).apply(tiny_model, tiny_texts, NOWHERE)
        assert len(kept) == 1 and kept[0].startswith("importance-neurons-taylor-")
        with pytest.raises(TypeError):
            Neurons(fraction=0.25, importance="magnitude", recovery="none").apply(tiny_model, tiny_texts, NOWHERE)
    for name, weight in expected.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], weight)


def test_recovery_needs_texts_and_labels(tiny_model, tiny_texts):
    empty = Splits(Texts(()), tiny_texts.dev, tiny_texts.test)
    with pytest.raises(DataError, match=r"^recovery=distill trains on the train split, and it is empty; give data"):
        Neurons().check(tiny_model, empty)
    unlabelled = Splits(Texts(tiny_texts.train.texts), tiny_texts.dev, tiny_texts.test)
    with pytest.raises(DataError, match=r"^recovery=full needs labels in the train split"):
        Neurons(recovery="full").check(tiny_model, unlabelled)
    Neurons(recovery="none", importance="magnitude").check(tiny_model, empty)


def test_a_bound_needs_a_dev_split(tiny_model, tiny_texts):
    no_dev = Splits(tiny_texts.train, Texts(()), tiny_texts.test)
    with pytest.raises(DataError, match=r"^max_quality_drop needs a dev split with labels"):
        Neurons(max_quality_drop=0.01).check(tiny_model, no_dev)


def test_a_control_without_training_is_refused():
    with pytest.raises(ConfigError, match=r"^control='from_scratch': with recovery=none there is no training"):
        Neurons(recovery="none", control="from_scratch")


@pytest.mark.parametrize("fraction", [0, 1, 0.0, 1.0, -0.5, "1"])
def test_a_fraction_of_nothing_or_all_is_refused(fraction):
    with pytest.raises(ConfigError, match=r"^fraction="):
        Neurons(fraction=fraction)
