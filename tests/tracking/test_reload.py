"""What is logged is loaded in a fresh process, and refused when it answers otherwise."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mlflow_llmops.batching.scorer import softmax
from mlflow_llmops.errors import ArtifactMismatch
from mlflow_llmops.flavors.by_kind import save_text_model
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.tracking.reload import Answers, answers_of_fresh_process, check_same, peak_mib


@pytest.fixture(scope="module")
def reloaded(tiny_model, tiny_texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reload") / "model"
    save_text_model(tiny_model, folder)
    return answers_of_fresh_process(folder, tiny_texts.test.texts)


def in_memory(model, data) -> np.ndarray:
    return softmax(scorer_of(model).logits(data.test.texts))


def test_a_sound_model_answers_the_same_in_a_fresh_process(reloaded, tiny_model, tiny_texts):
    assert check_same(tiny_model.labels, in_memory(tiny_model, tiny_texts), reloaded) < 1e-4


def test_the_fresh_process_says_what_it_took(reloaded):
    assert reloaded.peak_mib > 100  # torch alone takes more
    assert reloaded.cold_start_s > 0.1


def test_an_exported_worker_takes_less_memory_than_a_torch_one(reloaded, tiny_exported, tiny_texts, tmp_path):
    save_text_model(tiny_exported, tmp_path / "model")
    light = answers_of_fresh_process(tmp_path / "model", tiny_texts.test.texts)
    assert light.peak_mib < 0.75 * reloaded.peak_mib


def test_a_model_that_saves_other_weights_is_refused(tiny_model, tiny_texts, tmp_path):
    # the trap of live pruning masks: saving keeps the mask and its source, loading starts the layer at random
    from copy import deepcopy

    from torch.nn.utils import prune

    net = deepcopy(tiny_model.network)
    prune.l1_unstructured(net.classifier, "weight", amount=0.3)
    masked = tiny_model.with_net(net)
    save_text_model(masked, tmp_path / "model")
    torch.manual_seed(1)
    with pytest.raises(ArtifactMismatch, match="in a fresh process: .* is not trained"):
        answers_of_fresh_process(tmp_path / "model", tiny_texts.test.texts)


def test_a_model_with_other_weights_than_in_memory_is_refused(tiny_model, tiny_texts, reloaded):
    from copy import deepcopy

    net = deepcopy(tiny_model.network)
    with torch.no_grad():
        net.classifier.weight[0] += 0.05
    with pytest.raises(ArtifactMismatch, match="other outputs"):
        check_same(tiny_model.labels, in_memory(tiny_model.with_net(net), tiny_texts), reloaded)


def test_an_artifact_that_cannot_be_loaded_is_refused(tmp_path):
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    with pytest.raises(ArtifactMismatch, match="cannot be loaded in a fresh process"):
        answers_of_fresh_process(tmp_path, ("a text",))


def test_a_tie_that_rounding_turns_is_no_mismatch_but_a_turned_certainty_is():
    probabilities = np.array([[0.4, 0.4, 0.2], [0.05, 0.9, 0.05]])
    same = Answers(("a", "b"), (0.4, 0.9))
    assert check_same("abc", probabilities, same) == 0
    assert check_same("abc", probabilities, replace(same, labels=("b", "b"))) == 0
    for other in (
        replace(same, labels=("a", "a")),
        replace(same, labels=("c", "b")),  # not the one that it was tied with
        replace(same, labels=("c", "b"), scores=(0.2, 0.9)),
        replace(same, labels=("d", "b")),
        replace(same, scores=(0.4, 0.8)),
        replace(same, scores=(0.4, float("nan"))),
    ):
        with pytest.raises(ArtifactMismatch):
            check_same("abc", probabilities, other)


def test_peak_memory_is_of_this_process_and_not_of_its_parent():
    import subprocess
    import sys

    code = "from mlflow_llmops.tracking.reload import peak_mib; print(peak_mib())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 5 < float(child.stdout) < peak_mib() / 2
