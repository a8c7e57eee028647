"""Ask an endpoint many prompts: no prompt twice, a few at a time, within a budget, every paid answer kept."""

import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from tqdm.auto import tqdm

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError, LLMOpsError
from mlflow_llmops.methods import _session
from mlflow_llmops.methods.distill._answers import Answer, AnswersFile, answers_path
from mlflow_llmops.methods.distill._endpoint import (
    Endpoint,
    Request,
    answer_to,
    explained,
    is_final,
    is_of_the_prompt,
    rough_tokens,
    tries_after,
)

GIVE_UP_AFTER = 5
"""Requests that fail one after the other, each with all its retries, before the rest is not even tried."""
RECORD_SECONDS = 10.0


@dataclass
class Spending:
    """What this run has spent on an endpoint, and may."""

    max_requests: int | None = None
    max_tokens: int | None = None
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reserved: int = 0
    """Tokens that the requests on their way may still cost."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def limit(self, most: int) -> str:
        """The option that forbids a request of `most` tokens now; empty where none does."""
        if self.max_requests is not None and self.requests >= self.max_requests:
            return f"max_requests={self.max_requests}"
        if self.max_tokens is not None and self.tokens + self.reserved + most > self.max_tokens:
            return f"max_tokens={self.max_tokens}"
        return ""

    def record(self) -> None:
        """Tell the run."""
        spent = {names.REQUESTS: self.requests, names.PROMPT_TOKENS: self.prompt_tokens}
        spent[names.COMPLETION_TOKENS] = self.completion_tokens
        _session.current().record({name: float(value) for name, value in spent.items()}, self.requests)


def ask(endpoint: Endpoint, prompts: Sequence[str], concurrency: int, spending: Spending) -> list[Answer]:
    """An answer to each prompt, in their order: from the disk where it was ever asked before, else from the endpoint.

    A request that failed with all its retries gives an Answer with an `error`, and is asked again by the next run.

    Raises ConfigError where the budget is used up, and LLMOpsError where the endpoint answers nothing any more.
    """
    requests = {prompt: endpoint.request(prompt) for prompt in prompts}
    key_of = {prompt: endpoint.key_of(request) for prompt, request in requests.items()}
    kept = AnswersFile(answers_path(endpoint.url, endpoint.model))
    wanted = {key_of[prompt]: request for prompt, request in requests.items()}
    missing = {key: request for key, request in wanted.items() if key not in kept}
    failed: dict[str, Answer] = {}
    if missing:
        known = len(wanted) - len(missing)
        _announce(endpoint, missing, known)
        asking = _Asking(endpoint, kept, spending, missing, known)
        try:
            asking.run(concurrency, len(wanted))
        finally:
            spending.record()
        kept.refresh()
        failed = asking.failed
    return [kept[key_of[prompt]] if key_of[prompt] in kept else failed[key_of[prompt]] for prompt in prompts]


def _announce(endpoint: Endpoint, missing: Mapping[str, Request], known: int) -> None:
    """What is about to be spent, before it is."""
    tokens = sum(rough_tokens(request) for request in missing.values())
    _session.current().record({names.PLANNED_REQUESTS: len(missing), names.PLANNED_PROMPT_TOKENS: tokens}, 0)
    tqdm.write(
        f"{endpoint.model} at {endpoint.url}: {len(missing)} requests to come, about {tokens} prompt tokens and at "
        f"most {len(missing) * endpoint.max_new_tokens} of answers; {known} answers are on the disk already",
        file=sys.stderr,
    )


class _Asking:
    """The requests that are waiting, on their way, and failed."""

    def __init__(
        self, endpoint: Endpoint, kept: AnswersFile, spending: Spending, missing: Mapping[str, Request], known: int
    ) -> None:
        self.endpoint, self.kept, self.spending, self.missing = endpoint, kept, spending, missing
        self.client = endpoint.client()
        self.queue = deque(missing)
        self.asked_again: set[str] = set()
        self.failed: dict[str, Answer] = {}
        self.failures_in_a_row = 0
        self.answered = known > 0
        self.stop: Exception | None = None
        self.recorded = time.monotonic()

    def run(self, concurrency: int, total: int) -> None:
        """Until nothing is waiting, or it stops: then what is on its way is awaited and kept, and the reason raised."""
        running: dict[Future[tuple[Answer, int]], str] = {}
        bar = tqdm(total=total, initial=total - len(self.missing), desc=f"answers of {self.endpoint.model}")
        with bar, self.client, ThreadPoolExecutor(concurrency) as pool:
            while self.queue or running:
                limit = ""
                while self.queue and len(running) < concurrency and not self.stop:
                    key = self.queue[0]
                    self.kept.refresh()
                    if key in self.kept:  # another process was faster
                        self.queue.popleft()
                        bar.update()
                        continue
                    limit = self.spending.limit(self._most(key))
                    if limit:
                        break
                    self.queue.popleft()
                    self.spending.requests += 1
                    self.spending.reserved += self._most(key)
                    running[pool.submit(self._ask, key)] = key
                if limit and not running:
                    self.stop = ConfigError(f"{limit}: the budget is used up; raise it to go on")
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    bar.update(self._done(running.pop(future), future))
                bar.set_postfix(requests=self.spending.requests, tokens=self.spending.tokens)
                self._record_sometimes()
        if not self.stop and len(self.failed) == total:
            self.stop = LLMOpsError(next(iter(self.failed.values())).error)
        if self.stop:
            raise self._told(self.stop)

    def _most(self, key: str) -> int:
        return rough_tokens(self.missing[key]) + self.endpoint.max_new_tokens

    def _ask(self, key: str) -> tuple[Answer, int]:
        answer, retries = answer_to(self.missing[key], key, self.client)
        self.kept.append(answer)  # here, so that even an interrupt loses nothing that is paid
        return answer, retries

    def _done(self, key: str, future: "Future[tuple[Answer, int]]") -> int:
        """Count what a request cost; gives 1 where it is through, 0 where it is to be asked again."""
        self.spending.reserved -= self._most(key)
        error = future.exception()
        if error is not None:
            return self._failed(key, error)
        answer, retries = future.result()
        self.spending.requests += retries
        self.spending.prompt_tokens += answer.prompt_tokens
        self.spending.completion_tokens += answer.completion_tokens
        self.failures_in_a_row = 0
        self.answered = self.answered or answer.answer is not None
        if answer.answer is None:
            if key not in self.asked_again:
                self.asked_again.add(key)
                self.queue.append(key)
                return 0
            self.failed[key] = replace(answer, error=f"base_url={self.endpoint.url}: {answer.error}")
        return 1

    def _failed(self, key: str, error: BaseException) -> int:
        from openai import OpenAIError

        if not isinstance(error, OpenAIError):
            self.stop = self.stop or (error if isinstance(error, Exception) else RuntimeError(repr(error)))
            return 0
        said = explained(error, self.endpoint)
        self.failed[key] = Answer(key, None, error=said)
        self.spending.requests += tries_after(error, self.endpoint)
        # a text that the endpoint refuses stops nothing, unless it never took any
        if not (is_of_the_prompt(error) and self.answered):
            self.failures_in_a_row += 1
        if is_final(error) or self.failures_in_a_row >= GIVE_UP_AFTER:
            self.stop = self.stop or LLMOpsError(said)
        return 1

    def _told(self, stop: Exception) -> Exception:
        """The reason, with what it means for the work done so far."""
        if not isinstance(stop, LLMOpsError):
            return stop
        self.kept.refresh()
        missing = sum(key not in self.kept for key in self.missing)
        return type(stop)(
            f"{stop}. Of {len(self.missing)} prompts, {len(self.missing) - missing} were answered and are kept, "
            f"{missing} are missing; run it again to go on from there: what is kept costs nothing"
        )

    def _record_sometimes(self) -> None:
        if time.monotonic() - self.recorded >= RECORD_SECONDS:
            self.spending.record()
            self.recorded = time.monotonic()
