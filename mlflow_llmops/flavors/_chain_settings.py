"""What a chain consists of: a prompt, a model, and for retrieval an index with its encoder."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mlflow_llmops.endpoint.prompt import columns_of
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.flavors._chat_settings import ChatSettings

SETTINGS = "chain.json"
WRITER, ENCODER, INDEX = "model", "encoder", "index"
"""Folders beside it: a whole MLflow model, an encoder as `from_pretrained` reads it, vectors and passages."""
PROMPTS = {
    "translate": "Translate the following text from English to French. Answer with the translation alone.\n\n{text}",
    "rag": (
        "Answer the question from the passages alone. Where they do not hold the answer, say that you do not know.\n\n"
        "Passages:\n{context}\n\nQuestion: {question}"
    ),
}
CONTEXT, QUESTION = "context", "question"


@dataclass(frozen=True)
class ChainSettings:
    """What `chain.json` holds. Exactly one of an endpoint and a writer of ours answers.

    Raises ConfigError, naming the option, for a value that cannot work.
    """

    chain: str
    endpoint: ChatSettings | None = None
    """None: the MLflow model in the folder `model`. With the prompt and system prompt of the chain."""
    prompt: str = ""
    system: str | None = None
    max_new_tokens: int = 256
    temperature: float | None = 0.0
    concurrency: int = 4
    top_k: int = 4
    embeddings: ChatSettings | None = None
    """None: the encoder in the folder `encoder`."""
    trace: bool = False

    def __post_init__(self) -> None:
        if self.chain not in PROMPTS:
            raise ConfigError(f"chain={self.chain!r}: there are {' and '.join(PROMPTS)}")
        if not self.prompt:
            object.__setattr__(self, "prompt", PROMPTS[self.chain])
        names = set(columns_of(self.prompt))
        if self.chain == "rag" and names != {CONTEXT, QUESTION}:
            raise ConfigError(
                "prompt: for chain=rag write {context} where the passages go and {question}, no other name"
            )
        if not names:
            raise ConfigError(f"prompt={self.prompt[:80]!r}: it names no column; write {{text}} where the text goes")

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the input."""
        return (QUESTION,) if self.chain == "rag" else columns_of(self.prompt)

    def write(self, folder: Path) -> None:
        """Raises ConfigError where a key stands in them."""
        for asked in (self.endpoint, self.embeddings):
            if asked is not None:
                asked.refuse_key(self.prompt, self.system or "")
        (folder / SETTINGS).write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "ChainSettings":
        stored: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        for name in ("endpoint", "embeddings"):
            stored[name] = None if stored.get(name) is None else ChatSettings.of(stored[name])
        return cls(**{field.name: stored[field.name] for field in fields(cls) if field.name in stored})
