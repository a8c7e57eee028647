"""A loss is its written-out formula: in numpy, with its gradient, and over parts of a batch."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp, softmax
from transformers.modeling_outputs import SequenceClassifierOutput

from mlflow_llmops.methods._losses import REST_AT, label_loss, soft_target_loss, top_k_log_probabilities, total
from mlflow_llmops.methods._rows import IGNORED

WEIGHTS = [(0.3, 0.7, 2.0), (1.0, 0.0, 1.0), (0.0, 1.0, 4.0), (0.5, 2.0, 0.5)]


def value_of(loss, logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return total(loss(SequenceClassifierOutput(logits=logits), batch))


def batch_of(rows: int, labels: int, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    random = np.random.default_rng(seed)
    student, teacher = (torch.from_numpy(random.normal(0, 3, (rows, labels))) for _ in range(2))
    return student.requires_grad_(), {
        "labels": torch.from_numpy(random.integers(0, labels, rows)),
        "teacher": teacher,
    }


def completions(words: int = 9, seed: int = 1) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Two texts of five tokens; of the first the prompt, of the second the padding is not counted."""
    random = np.random.default_rng(seed)
    student, teacher = (torch.from_numpy(random.normal(0, 2, (2, 5, words))) for _ in range(2))
    labels = torch.from_numpy(random.integers(0, words, (2, 5)))
    labels[0, :2] = labels[1, 3:] = IGNORED
    return student.requires_grad_(), {"labels": labels, "teacher": teacher}


def kept(batch: dict[str, torch.Tensor], k: int) -> dict[str, torch.Tensor]:
    """The same with the teacher's `k` largest logits only."""
    top, ids = batch["teacher"].topk(k, dim=-1)
    others = batch["teacher"].scatter(-1, ids, float("-inf"))
    rest = torch.stack([(others * inverse).logsumexp(-1) for inverse in REST_AT], dim=-1)
    return {"labels": batch["labels"], "teacher_top": top, "teacher_ids": ids, "teacher_rest": rest}


@pytest.mark.parametrize(("alpha", "beta", "tau"), WEIGHTS)
def test_soft_targets_are_the_written_formula(alpha, beta, tau):
    student, batch = batch_of(7, 4)
    z_s, z_t, y = student.detach().numpy(), batch["teacher"].numpy(), batch["labels"].numpy()
    hard = -log_softmax(z_s, axis=1)[np.arange(7), y]
    soft = -(softmax(z_t / tau, axis=1) * log_softmax(z_s / tau, axis=1)).sum(1)
    expected = (alpha * hard + beta * tau**2 * soft).mean()
    assert value_of(soft_target_loss(alpha, beta, tau), student, batch).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("alpha", "beta", "tau"), WEIGHTS)
def test_the_gradient_of_soft_targets_is_the_written_one(alpha, beta, tau):
    student, batch = batch_of(7, 4)
    value_of(soft_target_loss(alpha, beta, tau), student, batch).backward()
    z_s, z_t = student.detach().numpy(), batch["teacher"].numpy()
    hard = softmax(z_s, axis=1) - np.eye(4)[batch["labels"].numpy()]
    soft = softmax(z_s / tau, axis=1) - softmax(z_t / tau, axis=1)
    np.testing.assert_allclose(student.grad.numpy(), (alpha * hard + beta * tau * soft) / 7, atol=1e-12)


def test_the_two_losses_are_kept_apart():
    student, batch = batch_of(7, 4)
    terms = soft_target_loss(0.3, 0.7, 2.0)(SequenceClassifierOutput(logits=student), batch)
    alone = label_loss(SequenceClassifierOutput(logits=student), batch)["label"][1]
    assert [(name, weight) for name, (weight, _) in terms.items()] == [("label", 0.3), ("teacher", 0.7 * 4)]
    assert terms["label"][1].item() == alone.item()


def test_the_soft_gradient_is_nil_where_the_student_answers_as_the_teacher():
    student, batch = batch_of(5, 3)
    batch["teacher"] = student.detach() + 1.5  # a shift of all logits is the same answer
    value_of(soft_target_loss(0.0, 1.0, 2.0), student, batch).backward()
    np.testing.assert_allclose(student.grad.numpy(), 0, atol=1e-12)


@pytest.mark.parametrize("loss", [soft_target_loss(0.3, 0.7, 2.0), label_loss])
def test_the_mean_of_two_halves_is_the_whole(loss):
    student, batch = batch_of(8, 3)
    parts = (slice(0, 4), slice(4, 8))
    halves = [value_of(loss, student[part], {k: v[part] for k, v in batch.items()}) for part in parts]
    assert value_of(loss, student, batch).item() == pytest.approx((halves[0] + halves[1]).item() / 2, rel=1e-12)


def test_label_loss_is_the_mean_negative_log_likelihood():
    student, batch = batch_of(6, 3)
    expected = -log_softmax(student.detach().numpy(), axis=1)[np.arange(6), batch["labels"].numpy()].mean()
    assert value_of(label_loss, student, batch).item() == pytest.approx(expected, rel=1e-12)


def test_next_token_loss_is_the_mean_over_the_tokens_that_follow():
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 4, 5)))
    labels = torch.tensor([[1, 2, 3, 4], [0, 3, IGNORED, IGNORED]])
    log_p = log_softmax(logits.numpy(), axis=2)
    expected = -np.mean([log_p[0, 0, 2], log_p[0, 1, 3], log_p[0, 2, 4], log_p[1, 0, 3]])
    assert value_of(label_loss, logits, {"labels": labels}).item() == pytest.approx(expected, rel=1e-12)


def test_next_token_loss_does_not_see_padding():
    random = np.random.default_rng(2)
    logits = torch.from_numpy(random.normal(size=(2, 6, 5)))
    batch = {"labels": torch.tensor([[1, 2, 3, 4, 0, 1], [0, 3, 2, IGNORED, IGNORED, IGNORED]])}
    before = value_of(label_loss, logits, batch)
    logits[1, 2:] = torch.from_numpy(random.normal(0, 50, (4, 5)))  # its last word and what comes after
    assert value_of(label_loss, logits, batch).item() == before.item()
    logits[1, 1] += torch.arange(5)
    assert value_of(label_loss, logits, batch).item() != before.item()


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_soft_targets_of_a_causal_model_are_the_formula_over_the_completion(tau):
    student, batch = completions()
    z_s, z_t, y = student.detach().numpy(), batch["teacher"].numpy(), batch["labels"].numpy()
    places = [(i, t) for i in range(2) for t in range(4) if y[i, t + 1] != IGNORED]
    soft = [-(softmax(z_t[at] / tau) * log_softmax(z_s[at] / tau)).sum() for at in places]
    hard = [-log_softmax(z_s[i, t])[y[i, t + 1]] for i, t in places]
    expected = 0.3 * np.mean(hard) + 0.7 * tau**2 * np.mean(soft)
    assert value_of(soft_target_loss(0.3, 0.7, tau), student, batch).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_all_words_kept_is_the_whole_answer(tau):
    student, batch = completions()
    loss = soft_target_loss(0.3, 0.7, tau)
    whole = value_of(loss, student, batch)
    # the top k are float32 in the loss: memory of answers is what they are kept for
    assert value_of(loss, student, kept(batch, 9)).item() == pytest.approx(whole.item(), rel=1e-6)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0, 4.0])
def test_kept_words_and_the_mass_of_the_rest_are_the_written_formula(tau):
    student, batch = completions(words=12)
    k = 4
    top = kept(batch, k)
    z_s, z_t, y = student.detach().numpy(), batch["teacher"].numpy(), batch["labels"].numpy()
    places = [(i, t) for i in range(2) for t in range(4) if y[i, t + 1] != IGNORED]
    values = []
    for at in places:
        ids = top["teacher_ids"].numpy()[at]
        together = logsumexp(np.delete(z_t[at], ids) / tau)
        teacher = softmax(np.append(z_t[at][ids] / tau, together))
        log_p = log_softmax(z_s[at] / tau)
        left = logsumexp(np.delete(log_p, ids))
        values.append(-(teacher * np.append(log_p[ids], left)).sum())
    terms = soft_target_loss(0.3, 0.7, tau)(SequenceClassifierOutput(logits=student), top)
    assert terms["teacher"][1].item() == pytest.approx(np.mean(values), rel=1e-6)


@pytest.mark.parametrize("tau", [8.0, 4.0, 2.0, 1.0, 0.5])
def test_at_known_temperatures_the_mass_of_the_rest_is_exact(tau):
    _, batch = completions(words=12)
    top = kept(batch, 4)
    log_p, rest = top_k_log_probabilities(top["teacher_top"], top["teacher_rest"], 8, tau)
    whole = torch.log_softmax(batch["teacher"] / tau, -1)
    torch.testing.assert_close(log_p, whole.gather(-1, top["teacher_ids"]))
    torch.testing.assert_close(rest, whole.scatter(-1, top["teacher_ids"], float("-inf")).logsumexp(-1))


@pytest.mark.parametrize("tau", [20.0, 10.0, 3.0, 1.2, 0.8])
def test_between_them_the_mass_of_the_rest_is_nearly_so(tau):
    _, batch = completions(words=400)
    top = kept(batch, 4)
    _, rest = top_k_log_probabilities(top["teacher_top"], top["teacher_rest"], 396, tau)
    exact = torch.log_softmax(batch["teacher"] / tau, -1).scatter(-1, top["teacher_ids"], float("-inf")).logsumexp(-1)
    assert (rest - exact).abs().max() < 0.05


def test_the_gradient_through_kept_words_points_where_the_whole_one_does():
    cosines = []
    for k in (2, 6, 11):
        gradients = []
        for answers in ("whole", "kept"):
            student, batch = completions(words=12)
            value_of(soft_target_loss(0, 1, 2.0), student, batch if answers == "whole" else kept(batch, k)).backward()
            gradients.append(student.grad.flatten())
        cosines.append(torch.cosine_similarity(*gradients, dim=0).item())
    assert cosines == sorted(cosines) and cosines[0] > 0.6 and cosines[-1] > 0.999
