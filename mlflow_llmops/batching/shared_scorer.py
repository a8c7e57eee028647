"""One scorer for all that this process is asked: repeated texts are remembered, calls of several threads gathered."""

from collections.abc import Hashable, Sequence

import numpy as np

from mlflow_llmops.batching.gather import Gatherer
from mlflow_llmops.batching.memo import Memo
from mlflow_llmops.batching.options import EngineOptions
from mlflow_llmops.batching.scorer import TextScorer


class SharedScorer:
    """A scorer behind a memo and a gatherer."""

    def __init__(self, scorer: TextScorer, options: EngineOptions) -> None:
        self.scorer, self.memo = scorer, Memo[np.ndarray](options.memo_rows)
        self.gatherer = Gatherer(self._run, scorer.token_budget, options.queue) if options.gather else None

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """As `TextScorer.logits`."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return np.zeros((0, 0), dtype=np.float32)
        found = self.memo.known(distinct)
        missing = [text for text in distinct if text not in found] if found else distinct
        if missing:
            ids = self.scorer.encode(missing)  # in the caller's thread, while the network is busy with others
            rows = self.gatherer(ids, sum(map(len, ids))) if self.gatherer else self._run(ids, None)
            scored = dict(zip(missing, rows, strict=True))
            self.memo.keep(scored)
            found = {**found, **scored}
        return np.stack([found[text] for text in texts])

    def _run(self, ids: list[np.ndarray], how: Hashable) -> list[np.ndarray]:
        """Each distinct text once, of whichever call."""
        position_of: dict[bytes, int] = {}
        positions = [position_of.setdefault(item.tobytes(), len(position_of)) for item in ids]
        first = dict(zip(reversed(positions), reversed(ids), strict=True))
        rows = self.scorer.logits_of_ids([first[position] for position in range(len(position_of))])
        # copies: a row that is remembered must not keep its whole batch in memory
        return [rows[position].copy() for position in positions]
