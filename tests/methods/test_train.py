"""Training records what it does, keeps what a kill would cost, goes on from there, and stops when it should."""

import os
import signal
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mlflow_llmops.errors import LLMOpsError
from mlflow_llmops.methods._losses import label_loss, soft_target_loss
from mlflow_llmops.methods._rows import collate, rows_of
from mlflow_llmops.methods._session import Session, session
from mlflow_llmops.methods._teacher import teacher_answers
from mlflow_llmops.methods._train import Schedule, train

SCHEDULE = Schedule(epochs=2, learning_rate=2e-3, batch_size=32, token_dropout=0.1, seed=0)


@pytest.fixture
def student(tiny_model):
    return tiny_model.with_net(deepcopy(tiny_model.network))


def records(into: list):
    return Session(record=lambda metrics, step: into.append((step, dict(metrics))))


def test_every_term_of_the_loss_is_recorded_by_itself(student, tiny_model, tiny_texts):
    heard: list = []
    rows = rows_of(student, tiny_texts.train, teacher_answers(tiny_model, tiny_texts.train))
    with session(records(heard)):
        train(student, rows, SCHEDULE, soft_target_loss(0.3, 0.7, 2.0), stage="student")
    training = [metrics for _, metrics in heard if "student/loss" in metrics]
    assert len(training) >= 4
    for metrics in training:
        whole = 0.3 * metrics["student/label_loss"] + 0.7 * 4 * metrics["student/teacher_loss"]
        assert metrics["student/loss"] == pytest.approx(whole, rel=1e-4)
        assert metrics["student/learning_rate"] >= 0
    steps = [step for step, _ in heard]
    assert steps == sorted(steps) and 2 * len(rows) / 32 - 4 < steps[-1] <= 2 * len(rows) / 32 + 2


def test_two_half_batches_make_the_step_of_a_whole_one(student, tiny_texts):
    nets = []
    for batch_size, accumulation in ((32, 1), (16, 2)):
        fresh = student.with_net(deepcopy(student.network))
        schedule = replace(SCHEDULE, batch_size=batch_size, accumulation=accumulation, token_dropout=0.0, epochs=0.1)
        rows = rows_of(fresh, tiny_texts.train.pick(range(32)))
        nets.append(train(fresh, rows, replace(schedule, epochs=1), label_loss))
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-3)


def test_the_gradient_of_two_half_batches_is_as_long_as_that_of_a_whole_one(tiny_model, tiny_decoder, tiny_texts):
    """AdamW hides a factor, clipping and the record do not."""
    one_length = tiny_texts.train.pick([0] * 32)  # a causal model's mean is over tokens
    for model, texts in ((tiny_model, tiny_texts.train.pick(range(32))), (tiny_decoder, one_length)):
        heard: list = []
        for batch_size, accumulation in ((32, 1), (16, 2)):
            fresh = model.with_net(deepcopy(model.network))
            schedule = replace(SCHEDULE, batch_size=batch_size, accumulation=accumulation, token_dropout=0.0, epochs=1)
            with session(records(heard)):
                train(fresh, rows_of(fresh, texts), schedule, label_loss)
        (_, whole), (_, halves) = [found for found in heard if "train/grad_norm" in found[1]]
        for name in ("train/grad_norm", "train/loss"):
            assert halves[name] == pytest.approx(whole[name], rel=1e-3), name


def test_frozen_embeddings_stay_and_may_learn_again_after(student, tiny_texts):
    before = student.network.get_input_embeddings().weight.clone()
    head = student.network.classifier.weight.clone()
    train(student, rows_of(student, tiny_texts.train), replace(SCHEDULE, freeze_embeddings=True, epochs=0.5))
    assert torch.equal(student.network.get_input_embeddings().weight, before)
    assert not torch.equal(student.network.classifier.weight, head)
    assert all(parameter.requires_grad for parameter in student.network.parameters())


def test_patience_stops_a_training_that_gets_worse_and_keeps_the_best(student, tiny_texts, tmp_path):
    heard: list = []
    schedule = replace(SCHEDULE, epochs=12, patience=1, learning_rate=3e-2)  # too fast to last
    with session(records(heard)):
        train(student, rows_of(student, tiny_texts.train), schedule, dev=rows_of(student, tiny_texts.dev))
    dev = [metrics["train/dev_loss"] for _, metrics in heard if "train/dev_loss" in metrics]
    assert 2 <= len(dev) < 12
    batch = collate(rows_of(student, tiny_texts.dev), student)
    with torch.no_grad():
        logits = student.network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    kept = torch.nn.functional.cross_entropy(logits, batch["labels"]).item()
    assert kept == pytest.approx(min(dev), rel=0.02)


def test_a_loss_that_is_no_number_stops_at_once_with_what_to_try(student, tiny_texts):
    rows = rows_of(student, tiny_texts.train)
    with pytest.raises(LLMOpsError, match=r"its (loss nan|loss inf|weights) at step \d+ .*try learning_rate=1e\+29"):
        train(student, rows, replace(SCHEDULE, learning_rate=1e30, token_dropout=0.0))


def test_what_is_trained_along_learns_and_leaves_no_trace(student, tiny_texts):
    along = torch.nn.Linear(32, 32)
    before = along.weight.clone()
    names = set(student.network.state_dict())

    def loss(outputs, batch):
        return {**label_loss(outputs, batch), "far": (1.0, along(outputs.hidden_states[-1]).square().mean())}

    rows = rows_of(student, tiny_texts.train)
    train(student, rows, replace(SCHEDULE, epochs=0.5), loss, wants=("hidden_states",), along=along)
    assert not torch.equal(along.weight, before)
    assert set(student.network.state_dict()) == names


KILLED = """
import sys
from pathlib import Path
import mlflow_llmops.methods._train as module
from mlflow_llmops.data.load import load_data
from mlflow_llmops.methods._rows import rows_of
from mlflow_llmops.methods._session import Session, session
from mlflow_llmops.models.load import load
model = load(sys.argv[1])
rows = rows_of(model, load_data(sys.argv[2]).train)
schedule = module.Schedule(epochs=8, learning_rate=2e-3, batch_size=16, token_dropout=0.1, seed=0)
heard = lambda metrics, step: print("step", step, flush=True)
with session(Session(work=Path(sys.argv[3]), checkpoint_seconds=0.2, record=heard)):
    net = module.train(model, rows, schedule)
net.save_pretrained(sys.argv[4])
"""


def run_until(command: list[str], checkpoints: Path | None) -> str:
    """Run to the end, or kill -9 once two checkpoints were written."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if checkpoints is not None:
        while len(list(checkpoints.glob("*/checkpoint-*/trainer_state.json"))) < 2 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    out, _ = process.communicate()
    return out


def test_a_killed_training_goes_on_and_ends_as_one_that_was_not(tiny_folder, tiny_data, tmp_path):
    arguments = [sys.executable, "-c", KILLED, str(tiny_folder), str(tiny_data)]
    whole = run_until([*arguments, str(tmp_path / "work-a"), str(tmp_path / "whole")], None)
    run_until([*arguments, str(tmp_path / "work-b"), str(tmp_path / "killed")], tmp_path / "work-b")
    assert not (tmp_path / "killed").exists()
    half_written = tmp_path / "work-b" / "train" / "checkpoint-99999"  # the kill may come while one is written
    half_written.mkdir()
    rest = run_until([*arguments, str(tmp_path / "work-b"), str(tmp_path / "killed")], None)
    steps = [int(line.split()[1]) for line in rest.splitlines() if line.startswith("step")]
    assert steps[0] > 1 and f"step {steps[-1]}\n" in whole
    weights = [load_weights(tmp_path / name) for name in ("whole", "killed")]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        np.testing.assert_allclose(weights[1][name], weight, atol=1e-5, err_msg=name)
    assert not (tmp_path / "work-b" / "train").exists(), "checkpoints go when training is done"


def load_weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def test_the_teacher_is_asked_once_for_all_runs_that_can_use_its_answers(tiny_model, tiny_texts, tmp_path):
    import shutil

    asked, kept = [], {}

    def keep(key: str, folder: Path) -> None:
        kept[key] = shutil.copytree(folder, tmp_path / key)

    class Counting(type(tiny_model)):
        @property
        def run(self):
            asked.append(1)
            return super().run

    teacher = Counting(**{name: getattr(tiny_model, name) for name in tiny_model.__dataclass_fields__})
    offered = Session(recall=kept.get, keep=keep)
    with session(offered):
        first = teacher_answers(teacher, tiny_texts.dev)
        count = len(asked)
        second = teacher_answers(teacher, tiny_texts.dev)
        assert count > 0 and len(asked) <= count + 1  # its runner may be looked at, for the tokenizer
        assert len(kept) == 1
        for one, other in zip(first["teacher"], second["teacher"], strict=True):
            np.testing.assert_array_equal(one, other)
        teacher_answers(teacher, tiny_texts.test)
        changed = deepcopy(tiny_model.network)
        changed.classifier.bias.data[0] += 1e-3
        teacher_answers(tiny_model.with_net(changed), tiny_texts.dev)
        teacher_answers(replace(tiny_model, max_length=8), tiny_texts.dev)
    assert len(kept) == 4, "other texts, other weights and another cut are other answers"
