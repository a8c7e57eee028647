"""How a causal model chooses the next token: the likeliest, or drawn at random."""

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from mlflow_llmops.batching.plan import NEW_TOKENS
from mlflow_llmops.errors import ConfigError


@dataclass(frozen=True)
class Decoding:
    """What is asked of a completion. Raises ConfigError, naming the option, for a value that cannot work."""

    max_new_tokens: int = NEW_TOKENS
    temperature: float = 0.0
    """0 takes the likeliest token each time; what logits are divided by otherwise."""
    top_p: float = 1.0
    """Only the likeliest tokens that together have this probability are drawn (Holtzman et al., arXiv:1904.09751)."""
    stop: tuple[str, ...] = ()
    """A completion ends before the first of these strings."""
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "max_new_tokens": (self.max_new_tokens >= 1, "must be at least 1"),
            "temperature": (0 <= self.temperature < math.inf, "must be 0 (the likeliest token) or above"),
            "top_p": (0 < self.top_p <= 1, "must be above 0 and at most 1"),
            "stop": (all(self.stop), "holds an empty string, which would end every completion at once"),
            "seed": (self.seed >= 0, "must be 0 or above"),
        }
        for name, (holds, said) in checks.items():
            if not holds:
                raise ConfigError(f"{name}={getattr(self, name)!r}: {said}")

    def random_of(self, prompt: str) -> np.random.Generator:
        """Each prompt has its own, so that what is drawn for it depends on no other text of the batch."""
        digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()
        return np.random.default_rng([self.seed, int.from_bytes(digest[:8], "big")])

    def choose(self, logits: np.ndarray, random: np.random.Generator) -> int:
        """One token from logits, (words,)."""
        if self.temperature == 0:
            return int(logits.argmax())
        ordered = np.argsort(-logits, kind="stable")
        scaled = logits[ordered].astype(np.float64) / self.temperature
        likely = np.exp(scaled - scaled[0])
        reached = np.cumsum(likely)
        # the token that reaches top_p is kept; rounding must not lose the last one
        kept = int(np.searchsorted(reached, self.top_p * reached[-1])) + 1
        drawn = np.searchsorted(reached[:kept], random.random() * reached[:kept][-1], side="right")
        return int(ordered[min(int(drawn), kept - 1)])
