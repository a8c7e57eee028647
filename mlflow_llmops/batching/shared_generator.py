"""One writer for all that this process is asked: repeated prompts are remembered, calls of several threads gathered."""

from collections.abc import Hashable, Sequence
from typing import cast

from mlflow_llmops.batching.decoding import Decoding
from mlflow_llmops.batching.gather import Gatherer
from mlflow_llmops.batching.generator import TextGenerator
from mlflow_llmops.batching.memo import Memo
from mlflow_llmops.batching.options import EngineOptions

LETTERS_A_TOKEN = 4
"""Roughly, in English: only how many calls share a batch hangs on it."""


class SharedGenerator:
    """A generator behind a memo and a gatherer. What is drawn hangs on the prompt and the seed alone, so that it can be
    remembered at any temperature."""

    def __init__(self, generator: TextGenerator, options: EngineOptions) -> None:
        self.generator, self.memo = generator, Memo[str](options.memo_rows)
        self.gatherer = Gatherer(self._run, generator.token_budget, options.queue) if options.gather else None

    def complete(self, prompts: Sequence[str], how: Decoding) -> list[str]:
        """What follows each prompt; only calls that ask for the same `how` are gathered."""
        distinct = list(dict.fromkeys(prompts))
        found = self.memo.known(distinct, how)
        missing = [prompt for prompt in distinct if prompt not in found]
        if missing:
            cost = sum(len(prompt) // LETTERS_A_TOKEN + how.max_new_tokens for prompt in missing)
            written = self.gatherer(missing, cost, how) if self.gatherer else self._run(missing, how)
            completed = dict(zip(missing, written, strict=True))
            self.memo.keep(completed, how)
            found = {**found, **completed}
        return [found[prompt] for prompt in prompts]

    def _run(self, prompts: list[str], how: Hashable) -> list[str]:
        return [completion.text for completion in self.generator.complete(prompts, cast(Decoding, how))]
