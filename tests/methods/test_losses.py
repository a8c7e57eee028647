"""A loss is its written-out formula: in numpy, with its gradient, and over parts of a batch."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from mlflow_llmops.methods._train import IGNORED, label_loss
from mlflow_llmops.methods.distill.logits import soft_target_loss

WEIGHTS = [(0.3, 0.7, 2.0), (1.0, 0.0, 1.0), (0.0, 1.0, 4.0), (0.5, 2.0, 0.5)]


def batch_of(rows: int, labels: int, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    random = np.random.default_rng(seed)
    student, teacher = (torch.from_numpy(random.normal(0, 3, (rows, labels))) for _ in range(2))
    return student.requires_grad_(), {
        "labels": torch.from_numpy(random.integers(0, labels, rows)),
        "teacher": teacher,
    }


@pytest.mark.parametrize(("alpha", "beta", "tau"), WEIGHTS)
def test_soft_targets_are_the_written_formula(alpha, beta, tau):
    student, batch = batch_of(7, 4)
    z_s, z_t, y = student.detach().numpy(), batch["teacher"].numpy(), batch["labels"].numpy()
    hard = -log_softmax(z_s, axis=1)[np.arange(7), y]
    soft = -(softmax(z_t / tau, axis=1) * log_softmax(z_s / tau, axis=1)).sum(1)
    expected = (alpha * hard + beta * tau**2 * soft).mean()
    assert soft_target_loss(alpha, beta, tau)(student, batch).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("alpha", "beta", "tau"), WEIGHTS)
def test_the_gradient_of_soft_targets_is_the_written_one(alpha, beta, tau):
    student, batch = batch_of(7, 4)
    soft_target_loss(alpha, beta, tau)(student, batch).backward()
    z_s, z_t = student.detach().numpy(), batch["teacher"].numpy()
    hard = softmax(z_s, axis=1) - np.eye(4)[batch["labels"].numpy()]
    soft = softmax(z_s / tau, axis=1) - softmax(z_t / tau, axis=1)
    np.testing.assert_allclose(student.grad.numpy(), (alpha * hard + beta * tau * soft) / 7, atol=1e-12)


def test_the_soft_gradient_is_nil_where_the_student_answers_as_the_teacher():
    student, batch = batch_of(5, 3)
    batch["teacher"] = student.detach() + 1.5  # a shift of all logits is the same answer
    soft_target_loss(0.0, 1.0, 2.0)(student, batch).backward()
    np.testing.assert_allclose(student.grad.numpy(), 0, atol=1e-12)


@pytest.mark.parametrize("loss", [soft_target_loss(0.3, 0.7, 2.0), label_loss("text-classification")])
def test_the_mean_of_two_halves_is_the_whole(loss):
    student, batch = batch_of(8, 3)
    halves = [loss(student[part], {k: v[part] for k, v in batch.items()}) for part in (slice(0, 4), slice(4, 8))]
    assert loss(student, batch).item() == pytest.approx((halves[0] + halves[1]).item() / 2, rel=1e-12)


def test_label_loss_is_the_mean_negative_log_likelihood():
    student, batch = batch_of(6, 3)
    expected = -log_softmax(student.detach().numpy(), axis=1)[np.arange(6), batch["labels"].numpy()].mean()
    assert label_loss("text-classification")(student, batch).item() == pytest.approx(expected, rel=1e-12)


def test_next_token_loss_is_the_mean_over_the_tokens_that_follow():
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 4, 5)))
    labels = torch.tensor([[1, 2, 3, 4], [0, 3, IGNORED, IGNORED]])
    log_p = log_softmax(logits.numpy(), axis=2)
    expected = -np.mean([log_p[0, 0, 2], log_p[0, 1, 3], log_p[0, 2, 4], log_p[1, 0, 3]])
    assert label_loss("text-generation")(logits, {"labels": labels}).item() == pytest.approx(expected, rel=1e-12)


def test_next_token_loss_does_not_see_padding():
    random = np.random.default_rng(2)
    logits = torch.from_numpy(random.normal(size=(2, 6, 5)))
    labels = torch.tensor([[1, 2, 3, 4, 0, 1], [0, 3, 2, IGNORED, IGNORED, IGNORED]])
    loss = label_loss("text-generation")
    before = loss(logits, {"labels": labels})
    logits[1, 2:] = torch.from_numpy(random.normal(0, 50, (4, 5)))  # its last word and what comes after
    assert loss(logits, {"labels": labels}).item() == before.item()
    logits[1, 1] += torch.arange(5)
    assert loss(logits, {"labels": labels}).item() != before.item()
