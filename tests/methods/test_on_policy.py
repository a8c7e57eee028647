"""Learning from the teacher's opinion of the student's own words."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from mlflow_llmops.methods._rows import IGNORED
from mlflow_llmops.methods.distill.on_policy import OnPolicy, generalized_jsd, sample

NOWHERE = Path("unused")
QUICK = {"student": "layers:1", "epochs": 1, "batch_size": 16, "prompt_tokens": 3, "new_tokens": 8}


def answers(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return log_softmax(random.normal(0, 2, (6, 9)), axis=1), log_softmax(random.normal(0, 2, (6, 9)), axis=1)


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((np.exp(p) * (p - q)).sum(1).mean())


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_divergence_is_the_written_formula(share):
    p, q = answers()
    m = np.log(share * np.exp(p) + (1 - share) * np.exp(q))
    got = generalized_jsd(torch.from_numpy(p), torch.from_numpy(q), share).item()
    assert got == pytest.approx(share * kl(p, m) + (1 - share) * kl(q, m), rel=1e-10)


def test_its_ends_are_the_two_kullback_leibler_divergences():
    p, q = answers()
    teacher, student = torch.from_numpy(p), torch.from_numpy(q)
    assert generalized_jsd(teacher, student, 0.0).item() == pytest.approx(kl(p, q), rel=1e-10)
    assert generalized_jsd(teacher, student, 1.0).item() == pytest.approx(kl(q, p), rel=1e-10)
    near = generalized_jsd(teacher, student, 1e-4).item() / 1e-4  # the limit that 0 stands for
    assert near == pytest.approx(kl(p, q), rel=0.01)


def test_it_is_nil_and_still_where_both_answer_alike():
    p, _ = answers()
    student = torch.from_numpy(p).requires_grad_()
    generalized_jsd(torch.from_numpy(p), torch.log_softmax(student, 1), 0.5).backward()
    np.testing.assert_allclose(student.grad.numpy(), 0, atol=1e-12)


def test_samples_are_the_students_words_and_prompts_are_not_counted(tiny_decoder, tiny_texts):
    ids = [tiny_decoder.encoder.encode(text).ids[:4] for text in tiny_texts.test.texts[:8]]
    prompts = torch.tensor(ids)
    torch.manual_seed(0)
    batch = sample(tiny_decoder, prompts, 12, 1.0)
    assert torch.equal(batch["input_ids"][:, :4], prompts)
    assert (batch["labels"][:, :4] == IGNORED).all()
    counted = batch["labels"][:, 4:] != IGNORED
    assert torch.equal(counted, batch["attention_mask"][:, 4:] == 1)
    assert torch.equal(batch["labels"][:, 4:][counted], batch["input_ids"][:, 4:][counted])
    end = tiny_decoder.tokenizer.eos_token_id
    for row, mask in zip(batch["input_ids"][:, 4:], counted, strict=True):
        ends = (row == end).nonzero().flatten()
        length = int(ends[0]) + 1 if len(ends) else len(row)
        assert mask.tolist() == [True] * length + [False] * (len(row) - length)
    assert tiny_decoder.network.training
    tiny_decoder.network.eval()


def test_a_sample_stays_within_what_the_student_reads(tiny_decoder):
    prompts = torch.full((2, tiny_decoder.max_length - 3), 7)
    assert sample(tiny_decoder, prompts, 50, 1.0)["input_ids"].shape[1] <= tiny_decoder.max_length
    tiny_decoder.network.eval()


def apart(teacher, student, texts) -> float:
    """Mean KL of the teacher's next words from the student's, on texts that no training saw."""
    found = []
    for text in texts.texts[:40]:
        ids = torch.tensor([teacher.encoder.encode(text).ids])
        with torch.no_grad():
            theirs, ours = (m.network(input_ids=ids).logits[0].log_softmax(-1).numpy() for m in (teacher, student))
        found.append(kl(theirs, ours))
    return float(np.mean(found))


def test_the_student_gets_nearer_to_the_teacher(tiny_decoder, tiny_texts):
    before = deepcopy(tiny_decoder.network.state_dict())
    options = {**QUICK, "student": "shape:layers=1,width=32,heads=2", "learning_rate": 5e-3}
    untrained, trained = (
        OnPolicy(**{**options, "epochs": epochs, "on_policy": 1.0}).apply(tiny_decoder, tiny_texts, NOWHERE)
        for epochs in (0, 3)
    )
    assert apart(tiny_decoder, trained, tiny_texts.test) < 0.5 * apart(tiny_decoder, untrained, tiny_texts.test)
    after = tiny_decoder.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "the teacher is frozen"


def test_without_samples_nothing_is_generated(tiny_decoder, tiny_texts, monkeypatch):
    from mlflow_llmops.methods.distill import on_policy

    def fail(*arguments):
        raise AssertionError("it sampled")

    monkeypatch.setattr(on_policy, "sample", fail)
    OnPolicy(**QUICK, on_policy=0.0).apply(tiny_decoder, tiny_texts, NOWHERE)
    with pytest.raises(AssertionError, match="it sampled"):
        OnPolicy(**QUICK, on_policy=1.0).apply(tiny_decoder, tiny_texts, NOWHERE)
