"""What every step works on: texts, their labels, and a fingerprint that says which they were."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Texts:
    """One split. `labels` is as long as `texts`, or empty where the task has none."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def fingerprint(self) -> str:
        """Of every text and label in their order: 16 hexadecimal digits of SHA-256."""
        digest = hashlib.sha256(json.dumps([self.texts, self.labels]).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]

    def pick(self, positions: Sequence[int]) -> "Texts":
        """The rows at `positions`, in that order."""
        return Texts(
            tuple(self.texts[i] for i in positions),
            tuple(self.labels[i] for i in positions) if self.labels else (),
        )


@dataclass(frozen=True)
class Splits:
    """Training and calibration see `train`, claims are measured on `test`; `dev` is held out of both for choices."""

    train: Texts
    dev: Texts
    test: Texts
    source: str = ""
    overlap_removed: int = 0
    """Texts that left train because they stand in dev or test as well, or left dev because they stand in test."""
    overlap_kept: int = 0
    """Such texts that stayed, because overlap=allow."""

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels that training sees, sorted: their order is the order of a new classifier's outputs."""
        return tuple(sorted(set(self.train.labels)))

    @cached_property
    def fingerprint(self) -> str:
        """Of the three splits together."""
        parts = [self.train.fingerprint, self.dev.fingerprint, self.test.fingerprint]
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def stable_hash(text: str) -> float:
    """A number in [0, 1) that depends on the text alone: the same split on every machine and for every order."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:7], "big") / 2**56
