"""Complete prompts with any causal model that reads on from its cache, be it torch or an exported graph."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from tokenizers import Tokenizer

from mlflow_llmops.batching.decoding import Decoding
from mlflow_llmops.batching.plan import plan_batches

Begin = Callable[[], Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]]
"""Gives a reader of one batch (`engines.Reader`)."""
GREEDY = Decoding()


def never(row: int) -> bool:
    """Somebody waits for every row."""
    return False


@dataclass
class Completion:
    """New token ids with the end token, where one came; by how much the logit of each was ahead of the next best one,
    where that was asked for; and the text, without special tokens and without spaces around it."""

    ids: list[int] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    text: str = ""


@dataclass(frozen=True)
class Clock:
    """Seconds from a batch's start to its first token, and from there to its last, one entry a batch."""

    first: list[float] = field(default_factory=list)
    rest: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class TextGenerator:
    """A tokenizer and a decoder, run over batches of similar length under a token budget.

    Of a model's own generation settings only the end tokens count: it completes greedily unless asked otherwise.
    """

    tokenizer: Tokenizer
    begin: Begin
    max_length: int
    pad_id: int
    end_ids: tuple[int, ...]
    token_budget: int

    def complete(
        self,
        prompts: Sequence[str],
        how: Decoding = GREEDY,
        margins: bool = False,
        whole: bool = False,
        clock: Clock | None = None,
    ) -> list[Completion]:
        """A completion for each prompt; each distinct prompt is completed once.

        A prompt that leaves no room keeps its last tokens. With `whole`, end tokens end nothing: all completions have
        the same length, for a fair measure of time.
        """
        new = max(1, min(how.max_new_tokens, self.max_length - 1))
        distinct = list(dict.fromkeys(prompts))
        encoded = self.encode(distinct, self.max_length - new)
        lengths = np.array([len(ids) + new for ids in encoded])
        done: dict[str, Completion] = {}
        for batch in plan_batches(lengths, self.token_budget):
            texts = [distinct[position] for position in batch]
            ids = [encoded[position] for position in batch]
            done |= zip(texts, self._write(texts, ids, new, how, margins, whole, clock), strict=True)
        return [done[prompt] for prompt in prompts]

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def encode(self, prompts: Sequence[str], room: int, special: bool = True) -> list[np.ndarray]:
        """The last `room` token ids of each prompt; without `special`, those that a text begins with are not added.

        Where a tokenizer makes nothing of an empty prompt, it begins as if another text had just ended.
        """
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        begin = [self.end_ids[0] if self.end_ids else self.pad_id]
        encoded = self.tokenizer.encode_batch_fast(list(prompts), add_special_tokens=special)
        return [np.array(item.ids[-max(1, room) :] or begin, dtype=np.int64) for item in encoded]

    def _write(
        self,
        texts: Sequence[str],
        prompts: Sequence[np.ndarray],
        new: int,
        how: Decoding,
        margins: bool,
        whole: bool,
        clock: Clock | None,
    ) -> list[Completion]:
        start = time.perf_counter()
        found = [Completion() for _ in texts]
        asked = replace(how, max_new_tokens=new)
        for _ in self.stream(texts, prompts, [asked] * len(texts), found, margins, whole):
            if clock is not None and len(clock.first) == len(clock.rest):
                clock.first.append(time.perf_counter() - start)
        if clock is not None:
            clock.rest.append(time.perf_counter() - start - clock.first[-1])
        for completion in found:
            completion.text = before(self.text_of(completion.ids), how.stop).strip()
        return found

    def stream(
        self,
        texts: Sequence[str],
        prompts: Sequence[np.ndarray],
        hows: Sequence[Decoding],
        found: Sequence[Completion],
        margins: bool = False,
        whole: bool = False,
        left: Callable[[int], bool] = never,
    ) -> Iterator[np.ndarray]:
        """Write a batch token by token: gives the rows that have got one, after each step.

        `texts` seed what is drawn, `prompts` are their token ids, `hows` what is asked of each; the tokens go to
        `found`. A row is not read on once it has ended, or where `left(row)` says that nobody wants more of it.
        """
        randoms = [how.random_of(text) if how.temperature else None for text, how in zip(texts, hows, strict=True)]
        input_ids, mask = pad_left(prompts, self.pad_id)
        read, rows = self.begin(), None
        live = np.arange(len(texts))
        while True:
            logits = read(input_ids, mask, rows)[:, -1]
            chosen = logits.argmax(axis=-1)
            for row, i in enumerate(live.tolist()):
                if (random := randoms[i]) is not None:
                    chosen[row] = hows[i].choose(logits[row], random)
                found[i].ids.append(int(chosen[row]))
                if margins:
                    best = np.partition(logits[row], -2)[-2:]
                    found[i].margins.append(float(best[1] - best[0]))
            yield live
            going = np.flatnonzero([not self.done(found[i], hows[i], whole) and not left(i) for i in live.tolist()])
            if not len(going):
                return
            rows = going if len(going) < len(live) else None
            live, input_ids = live[going], chosen[going, None].astype(np.int64)
            mask = np.concatenate([mask[going], np.ones((len(going), 1), dtype=np.int64)], axis=1)

    def done(self, completion: Completion, how: Decoding, whole: bool = False) -> bool:
        """It is as long as asked for, or has ended itself; with `whole` only the former."""
        if len(completion.ids) >= how.max_new_tokens:
            return True
        return not whole and self._ended(completion, how.stop)

    def _ended(self, completion: Completion, stop: Sequence[str]) -> bool:
        if completion.ids[-1] in self.end_ids:
            return True
        if not stop:
            return False
        text = self.text_of(completion.ids)
        return any(string in text for string in stop)


def before(text: str, stop: Sequence[str]) -> str:
    """What stands before the first of the strings `stop`."""
    found = [text.find(string) for string in stop]
    return text[: min((at for at in found if at >= 0), default=len(text))]


def pad_left(ids: Sequence[np.ndarray], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """One rectangle of token ids and its mask, filled up on the left, so that what is new follows the prompt."""
    width = max(len(item) for item in ids)
    input_ids = np.full((len(ids), width), pad_id, dtype=np.int64)
    mask = np.zeros_like(input_ids)
    for row, item in enumerate(ids):
        input_ids[row, width - len(item) :] = item
        mask[row, width - len(item) :] = 1
    return input_ids, mask
