"""Which layer of the student learns from which layer of its teacher."""

import re

from mlflow_llmops.errors import ConfigError

PAIRS = re.compile(r"\d+:\d+(,\d+:\d+)*", re.ASCII)
EVEN, LAST = "even", "last"


def check_layers(layers: str) -> None:
    """Raises ConfigError for a layer map that cannot be read."""
    if layers not in (EVEN, LAST) and not PAIRS.fullmatch(layers):
        raise ConfigError(f"layers={layers!r} cannot be read; write even, last, or pairs student:teacher as 1:2,2:4")


def layer_pairs(layers: str, student: int, teacher: int, embeddings: bool = False) -> list[tuple[int, int]]:
    """(student's, teacher's) layers, counted from 1; 0 is the embeddings' output. `student`, `teacher`: how many.

    `even` spreads the student's layers over the teacher's, as in TinyBERT (arXiv:1909.10351).
    Raises ConfigError, naming the option, for a layer that is not there.
    """
    check_layers(layers)
    if layers == EVEN:
        pairs = [(i, max(1, round(i * teacher / student))) for i in range(1, student + 1)]
    elif layers == LAST:
        pairs = [(student, teacher)]
    else:
        pairs = [(int(ours), int(theirs)) for ours, theirs in (pair.split(":") for pair in layers.split(","))]
    for ours, theirs in pairs:
        if ours > student or theirs > teacher:
            raise ConfigError(
                f"layers={layers!r}: no {ours}:{theirs} here; the student has {student} layers, its teacher {teacher}"
            )
    return [(0, 0), *pairs] if embeddings and (0, 0) not in pairs else pairs
