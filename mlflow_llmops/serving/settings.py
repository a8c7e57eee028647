"""What a server is told when it starts; its workers read it from their environment."""

import json
import os
from dataclasses import asdict, dataclass

VARIABLE = "LLMOPS_SERVE"
KEY_VARIABLE = "LLMOPS_SERVE_KEY"
METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's own: where the workers of a server leave their numbers."""


@dataclass(frozen=True)
class Settings:
    """One server: a reference to a model, an address, and bounds for what may be asked."""

    model: str
    name: str
    """What clients call the model."""
    host: str = "127.0.0.1"
    port: int = 0
    workers: int = 1
    max_waiting: int = 256
    max_connections: int = 1000
    timeout: float = 60.0
    """Seconds for an answer; what would wait longer is refused."""
    head_seconds: float = 10.0
    body_seconds: float = 10.0
    body_bytes: int = 4 * 2**20
    max_letters: int = 100_000
    max_texts: int = 2048
    new_tokens: int = 256
    cache: int = 10_000
    poll_seconds: float = 5.0
    key_variable: str = KEY_VARIABLE

    def to_environment(self) -> None:
        """For this process and its workers; the key itself is inherited under its own name."""
        os.environ[VARIABLE] = json.dumps(asdict(self))

    @classmethod
    def from_environment(cls) -> "Settings":
        return cls(**json.loads(os.environ[VARIABLE]))

    @property
    def key(self) -> str:
        """What a client must send; empty: nothing."""
        return os.environ.get(self.key_variable, "")
