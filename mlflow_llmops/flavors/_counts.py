"""What the memo and the gatherer of a loaded version have saved."""

from mlflow_llmops.batching.shared_generator import SharedGenerator
from mlflow_llmops.batching.shared_scorer import SharedScorer


def counts_of(shared: SharedScorer | SharedGenerator) -> dict[str, int]:
    """Since the model was opened in this process, over all that it was loaded for."""
    memo, gatherer = shared.memo, shared.gatherer
    counts = {"memo_hits": memo.hits, "memo_misses": memo.misses, "memo_rows": len(memo)}
    if gatherer is None:
        return counts
    return counts | {"calls": gatherer.calls, "runs": gatherer.runs, "refused": gatherer.refused}
