"""Quality label by label, and which labels are taken for which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support


@dataclass(frozen=True)
class Classes:
    """For each label of the texts or of any answer, in order: its number of texts, and by model precision, recall and
    F1, (labels,) each, and the share of a label's texts by the answer they got, (labels, labels)."""

    labels: tuple[str, ...]
    texts: np.ndarray
    precision: Mapping[str, np.ndarray]
    recall: Mapping[str, np.ndarray]
    f1: Mapping[str, np.ndarray]
    confusion: Mapping[str, np.ndarray]


def by_class(truth: Sequence[str], answers: Mapping[str, Sequence[str]]) -> Classes:
    """`answers` are those of each model to the same texts; scores without a text or an answer are 0."""
    labels = sorted({*truth, *(label for each in answers.values() for label in each)})
    precision, recall, f1, confusion = {}, {}, {}, {}
    texts = np.zeros(len(labels))
    for model, said in answers.items():
        found = precision_recall_fscore_support(truth, said, labels=labels, zero_division=0.0)
        precision[model], recall[model], f1[model], texts = found
        counts = confusion_matrix(truth, said, labels=labels)
        confusion[model] = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    return Classes(tuple(labels), np.asarray(texts), precision, recall, f1, confusion)
