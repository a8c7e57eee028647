"""How likely a causal model holds each token of a text, given those before it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from mlflow_llmops.batching.plan import TOKEN_BUDGET, plan_batches
from mlflow_llmops.batching.scorer import pad
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.models.text_model import TextModel


@dataclass(frozen=True)
class Likelihoods:
    """Of each text, for its second token and each later one, so (tokens - 1,): the token's natural log probability,
    the most likely token in its place, and the position in the text behind its last character."""

    tokenizer: str
    """The whole tokenizer as JSON: two models with the same one can be compared token by token."""
    log: list[np.ndarray]
    best: list[np.ndarray]
    ends: list[np.ndarray]
    starts: list[int]
    """The position of the first character that is predicted, in each text."""
    hits: list[np.ndarray]
    """Whether the most likely token is the text's own."""

    @property
    def counts(self) -> np.ndarray:
        """Tokens that are predicted, (texts,)."""
        return np.array([len(values) for values in self.log])


def likelihoods(model: TextModel, texts: Sequence[str]) -> Likelihoods:
    """Texts are cut to what the model takes. The tokenizer's own marks at a text's beginning count as tokens that are
    given; no end is added, so perplexity is that of the text alone."""
    log, best, hits = ([np.zeros(0)] * len(texts) for _ in range(3))
    ids = scorer_of(model).encode(texts)
    with tqdm(total=len(ids), desc="log-likelihoods") as bar:
        for position, logits in _scored(model, ids):
            targets, ahead = ids[position][1:], logits[: len(ids[position]) - 1]
            highest = ahead.max(axis=-1)
            total = np.exp(ahead - highest[:, None]).sum(axis=-1, dtype=np.float64)
            log[position] = ahead[np.arange(len(targets)), targets] - highest - np.log(total)
            best[position] = ahead.argmax(axis=-1)
            hits[position] = best[position] == targets
            bar.update()
    encoder = model.encoder
    encoder.no_truncation()
    encoded = encoder.encode_batch(list(texts))
    spans = [_ends(item.offsets, len(row)) for item, row in zip(encoded, ids, strict=True)]
    starts = [int(ends[0]) if len(ends) else 0 for ends in spans]
    return Likelihoods(encoder.to_str(), log, best, [ends[1:] for ends in spans], starts, hits)


def score(model: TextModel, texts: Sequence[str]) -> None:
    """Run the network over `texts`, and leave it at that: what is timed."""
    for _ in _scored(model, scorer_of(model).encode(texts)):
        pass


def _scored(model: TextModel, ids: list[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """The position of each text and its logits, (tokens, words)."""
    for batch in plan_batches(np.array([len(item) for item in ids]), TOKEN_BUDGET[model.kind]):
        scored = model.run(pad([ids[position] for position in batch], model.pad_id))
        for position, row in zip(batch, scored, strict=True):
            yield int(position), row


def _ends(offsets: Sequence[tuple[int, int]], count: int) -> np.ndarray:
    """Where each token ends in the text: spaces that offsets leave out go to the token behind them."""
    return np.maximum.accumulate(np.array([end for _, end in offsets[:count]], dtype=np.int64))
