"""The folder of an exported model: the graph, `tokenizer.json`, and `llmops.json` that says how to read both.

It is a storage format: fields are added with a default, never renamed.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from mlflow_llmops.errors import ModelError

DESCRIPTION = "llmops.json"
TOKENIZER = "tokenizer.json"
CHAT = "chat.json"
"""The chat template of the tokenizer, and what it calls its special tokens, where it has one."""


@dataclass(frozen=True)
class ExportedArtifact:
    """What a worker must know to score text with the graph beside it."""

    kind: str
    task: str
    labels: tuple[str, ...]
    max_length: int
    pad_id: int
    parameters: int
    nonzero_parameters: int
    precision: str = "fp32"
    end_ids: tuple[int, ...] = ()
    """Tokens that end what a causal model writes."""
    runtime: dict[str, str] = field(default_factory=dict)
    """Settings of the engine that runs the graph, as it names them."""
    token_budget: int = 0
    """Padded tokens in a batch, as they were found to be the fastest; 0: what suits the kind of artifact."""
    token_budget_hardware: str = ""
    """Where they were."""

    @property
    def hangs_on_batch(self) -> bool:
        """Whether an answer depends on what else is in its batch, as ranges of activations are taken over all of it."""
        return self.precision == "int8 dynamic"

    def write(self, folder: Path) -> None:
        (folder / DESCRIPTION).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "ExportedArtifact":
        """Raises ModelError where `folder` holds no exported model."""
        path = folder / DESCRIPTION
        if not path.is_file():
            raise ModelError(f"{folder} holds no exported model ({DESCRIPTION} is missing)")
        stored = json.loads(path.read_text(encoding="utf-8"))
        known = {each.name for each in fields(cls)}
        values = {name: value for name, value in stored.items() if name in known}
        tuples = {name: tuple(values[name]) for name in ("labels", "end_ids") if name in values}
        return cls(**{**values, **tuples})
