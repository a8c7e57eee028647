"""A student learns from its teacher's answers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mlflow_llmops.batching.scorer import softmax
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods._teacher import teacher_answers
from mlflow_llmops.methods.distill.logits import Logits

NOWHERE = Path("unused")


def held_out_loss(model, texts) -> float:
    """Cross entropy with the labels of texts that no training saw."""
    numbers = torch.tensor([model.labels.index(label) for label in texts.labels])
    return torch.nn.functional.cross_entropy(torch.from_numpy(scorer_of(model).logits(texts.texts)), numbers).item()


@pytest.mark.parametrize("student", ["layers:1", "shape:layers=1,width=32,heads=2"])
def test_a_distilled_student_beats_the_same_student_without_training(tiny_model, tiny_texts, student):
    untrained, trained = (
        Logits(student=student, epochs=epochs, batch_size=16).apply(tiny_model, tiny_texts, NOWHERE, seed=1)
        for epochs in (0, 3)
    )
    assert held_out_loss(trained, tiny_texts.test) < held_out_loss(untrained, tiny_texts.test)


def test_a_student_of_the_teacher_answers_more_like_it_than_one_of_the_labels(tiny_model, tiny_texts):
    target = softmax(np.stack(teacher_answers(tiny_model, tiny_texts.test)["teacher"]))

    def distance(alpha: float, beta: float) -> float:
        method = Logits(student="layers:1", alpha=alpha, beta=beta, epochs=3, batch_size=16)
        answers = softmax(scorer_of(method.apply(tiny_model, tiny_texts, NOWHERE, 1)).logits(tiny_texts.test.texts))
        return float((target * (np.log(target) - np.log(answers))).sum(1).mean())

    assert distance(alpha=0.0, beta=1.0) < distance(alpha=1.0, beta=0.0)


def test_the_teachers_answers_stand_in_the_order_of_the_texts(tiny_model, tiny_texts):
    texts = tiny_texts.dev.pick([*range(20), 0])
    alone = np.concatenate([scorer_of(tiny_model).logits([text]) for text in texts.texts])
    np.testing.assert_allclose(np.stack(teacher_answers(tiny_model, texts)["teacher"]), alone, atol=1e-4)
