"""What was made is kept by all that it depends on, and made once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods._session import Session, session
from mlflow_llmops.methods.distill.logits import Logits
from mlflow_llmops.methods.prune.neurons import Neurons
from mlflow_llmops.methods.table import build
from mlflow_llmops.search import kept
from mlflow_llmops.search.kept import workshop
from mlflow_llmops.search.space import read_space

TASK = "text-classification"
(LONG,) = read_space("prune.neurons(recovery=none) > distill.logits(epochs=0.5) > prune.vocabulary", TASK).chains
(OTHER,) = read_space("prune.neurons(recovery=none) > distill.logits(epochs=0.5) > export.openvino", TASK).chains


@pytest.fixture
def shop(tiny_model, tiny_texts, tmp_path):
    return workshop(tiny_model, tiny_texts, 0, tmp_path / "kept", tmp_path / "partial")


def test_a_chain_is_what_its_methods_make_one_after_the_other_with_the_uncut_teacher(
    shop, tiny_model, tiny_texts, tmp_path
):
    made = shop.make(LONG)
    assert [part.name for part in made.seconds] == [part.name for part in LONG]
    torch.manual_seed(0)
    cut = build("prune.neurons", {"recovery": "none"}).apply(tiny_model, tiny_texts, tmp_path, 0)
    cut.save(tmp_path / "cut")
    student = Logits(epochs=0.5, student=str(tmp_path / "cut")).apply(tiny_model, tiny_texts, tmp_path, 0)
    by_hand = build("prune.vocabulary", {}).apply(student, tiny_texts, tmp_path, 0)
    texts = tiny_texts.test.texts
    np.testing.assert_allclose(scorer_of(made.model).logits(texts), scorer_of(by_hand).logits(texts), atol=1e-5)


def test_nothing_is_made_twice_and_common_parts_are_shared(shop):
    assert len(shop.missing(LONG)) == 3
    shop.make(LONG)
    assert shop.missing(LONG) == []
    assert shop.make(LONG).seconds == {}
    assert [part.name for part in shop.missing(OTHER)] == ["export.openvino"]
    assert [part.name for part in shop.make(OTHER).seconds] == ["export.openvino"]


def test_the_key_holds_weights_data_parameters_seed_and_code(shop, tiny_model, tiny_texts, monkeypatch):
    def key(model=tiny_model, data=tiny_texts, seed=0, chain=LONG):
        return workshop(model, data, seed, shop.kept, shop.partial).key(chain)

    (longer,) = read_space("prune.neurons(recovery=none) > distill.logits(epochs=1) > prune.vocabulary", TASK).chains
    other = tiny_model.with_net(Neurons(recovery="none").apply(tiny_model, tiny_texts, shop.kept).network)
    seen_less = replace(tiny_texts, train=tiny_texts.train.pick(range(500)))
    unseen = replace(tiny_texts, test=tiny_texts.test.pick(range(50)))
    assert key() == key(data=unseen), "nothing that is made has seen test"
    keys = [key(), key(model=other), key(data=seen_less), key(seed=1), key(chain=longer), key(chain=OTHER)]
    monkeypatch.setattr(kept, "code", lambda: "another")
    assert len({*keys, key()}) == 7


def test_a_training_that_was_stopped_leaves_nothing_that_looks_done_and_goes_on(shop, monkeypatch):
    steps = []

    def stop(metrics, step):
        steps.append(step)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), session(Session(record=stop, checkpoint_seconds=0.0)):
        shop.make(LONG)
    assert steps
    assert [part.name for part in shop.missing(LONG)] == ["distill.logits", "prune.vocabulary"]
    assert list(shop.partial.glob("*/checkpoints/**/trainer_state.json")), "a resume has what was trained"
    shop.make(LONG)
    assert shop.missing(LONG) == []
    assert list(shop.partial.iterdir()) == []
