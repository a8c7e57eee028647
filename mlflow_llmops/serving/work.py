"""What the engine's thread does: rows for the texts of many requests at once, completions token by token."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from mlflow_llmops.batching.decoding import Decoding
from mlflow_llmops.batching.generator import Completion, TextGenerator, before
from mlflow_llmops.batching.scorer import TextScorer
from mlflow_llmops.serving import metrics
from mlflow_llmops.serving.cache import Cache
from mlflow_llmops.serving.engine import Engine, Job
from mlflow_llmops.serving.version import Version

LETTERS = 4
"""In a token, about: what a batch may hold is estimated before it is tokenized."""
STOP, LENGTH = "stop", "length"


@dataclass(frozen=True)
class Row:
    """What a network gave for a text: logits or a vector, and of how many tokens."""

    values: np.ndarray
    tokens: int


async def rows_of(
    engine: Engine, cache: Cache, version: Version, what: str, scorer: TextScorer, texts: Sequence[str]
) -> list[Row]:
    """A row for each text, in order, those that were asked before from the cache."""
    found = {text: cache.get((version.uri, what, text)) for text in dict.fromkeys(texts)}
    if missing := [text for text, row in found.items() if row is None]:
        cost = sum(min(len(text) // LETTERS + 2, scorer.max_length) for text in missing)
        together = (version.uri, version.loaded, what)
        job = Job(partial(_score, scorer), missing, together, cost, scorer.token_budget)
        for text, row in zip(missing, await engine.answer(job), strict=True):
            found[text] = row
            cache.keep((version.uri, what, text), row)
    return [found[text] for text in texts]


def _score(scorer: TextScorer, jobs: Sequence[Job]) -> list[list[Row]]:
    distinct = list(dict.fromkeys(text for job in jobs for text in job.item))
    ids = scorer.encode(distinct)
    scored = scorer.logits_of_ids(ids)
    rows = {text: Row(values, len(each)) for text, values, each in zip(distinct, scored, ids, strict=True)}
    return [[rows[text] for text in job.item] for job in jobs]


@dataclass(eq=False)
class Writing:
    """A completion in progress: the engine's thread adds tokens, the loop reads them."""

    generator: TextGenerator
    prompt: str
    ids: np.ndarray
    how: Decoding
    found: Completion = field(default_factory=Completion)
    wrote: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there is more to read."""
    ended: bool = False

    @property
    def tokens(self) -> list[int]:
        return list(self.found.ids)

    @property
    def text(self) -> str:
        """As far as it is certain: without a letter that is not whole yet, or what may begin a stop string."""
        text = self.generator.text_of(self.tokens)
        whole = before(text, self.how.stop)
        if self.ended or len(whole) < len(text):
            return whole
        whole = whole.rstrip("\ufffd")
        held = max((_begun(whole, stop) for stop in self.how.stop), default=0)
        return whole[: len(whole) - held]

    @property
    def reason(self) -> str:
        """Why it ended, in OpenAI's words."""
        ids = self.tokens
        text = self.generator.text_of(ids)
        ended = ids[-1] in self.generator.end_ids or any(stop in text for stop in self.how.stop)
        return STOP if ended else LENGTH


def _begun(text: str, stop: str) -> int:
    """How many of the last letters may be the beginning of `stop`."""
    return next((n for n in range(min(len(stop), len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def writing_job(version: Version, writing: Writing, streams: bool) -> Job:
    """Completions run together with others of the same version; a batch is as long as its longest."""
    generator = writing.generator
    run = partial(_write, generator, asyncio.get_running_loop())
    cost = len(writing.ids) + writing.how.max_new_tokens
    return Job(run, (writing, streams), (version.uri, version.loaded, "write"), cost, generator.token_budget)


def _write(generator: TextGenerator, loop: asyncio.AbstractEventLoop, jobs: Sequence[Job]) -> list[Writing]:
    items: list[Writing] = [job.item[0] for job in jobs]
    found = [item.found for item in items]
    for each in found:  # of a turn that failed
        each.ids.clear()
    texts, ids = [item.prompt for item in items], [item.ids for item in items]
    steps = generator.stream(texts, ids, [item.how for item in items], found, left=lambda row: jobs[row].gone)
    for rows in steps:
        metrics.written.inc(len(rows))
        ended = {int(i) for i in rows if generator.done(found[i], items[i].how)}
        told = [jobs[i] for i in rows if i in ended or jobs[i].item[1]]
        if told:
            loop.call_soon_threadsafe(_tell, told, {id(jobs[i]) for i in ended})
    return items


def _tell(jobs: Sequence[Job], ended: set[int]) -> None:
    """In the loop's thread, once a step for all rows of a batch."""
    for job in jobs:
        writing: Writing = job.item[0]
        if id(job) in ended:
            writing.ended = True
            job.finish(writing)
        writing.wrote.set()


async def call(engine: Engine, function: Any, *arguments: Any) -> Any:
    """Run something of another kind in the engine's thread, alone."""
    return await engine.answer(Job(lambda jobs: [function(*arguments)], None))
