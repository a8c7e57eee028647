"""How many tokens of a row the model reads, for models whose tokenizer lies beside them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

Count = Callable[[Sequence[str]], list[int | None]]
DESCRIPTION = "llmops.json"
PLACES = ("artifact/tokenizer.json", "components/tokenizer/tokenizer.json")
"""In `exported_text` and in MLflow's transformers flavor."""


def counter_of(folder: Path) -> Count:
    """From texts to their tokens, cut where the model says that it cuts; nulls where it has no such tokenizer."""
    path = next((folder / place for place in PLACES if (folder / place).is_file()), None)
    if path is None:
        return lambda texts: [None] * len(texts)
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    described = path.parent / DESCRIPTION
    if described.is_file():
        tokenizer.enable_truncation(json.loads(described.read_text(encoding="utf-8"))["max_length"])
    return lambda texts: [len(item.ids) for item in tokenizer.encode_batch_fast(list(texts))]
