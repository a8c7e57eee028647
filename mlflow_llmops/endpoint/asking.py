"""Ask an endpoint many prompts: no prompt twice, a few at a time, within a budget, every paid answer kept."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from mlflow_llmops.endpoint.answers import Answer
from mlflow_llmops.endpoint.client import (
    Endpoint,
    Request,
    answer_to,
    explained,
    is_final,
    is_of_the_prompt,
    rough_tokens,
    tries_after,
)
from mlflow_llmops.errors import ConfigError, LLMOpsError

if TYPE_CHECKING:
    from openai import OpenAI

GIVE_UP_AFTER = 5
"""Requests that fail one after the other, each with all its retries, before the rest is not even tried."""
MILLION = 1e6


class Kept(Protocol):
    """Where paid answers are found again: a file, or the memory of a process."""

    def __contains__(self, key: str) -> bool: ...
    def __getitem__(self, key: str) -> Answer: ...
    def append(self, answer: Answer) -> None: ...
    def refresh(self) -> None: ...


@dataclass
class Spending:
    """What was spent on an endpoint, and what may be; safe to share between threads. Prices are of a million tokens."""

    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reserved_prompt: int = 0
    reserved_completion: int = 0
    """Tokens that the requests on their way may still cost."""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def reserved(self) -> int:
        return self.reserved_prompt + self.reserved_completion

    def price(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.prompt_price + completion_tokens * self.completion_price) / MILLION

    def reserve(self, prompt_tokens: int, completion_tokens: int) -> str:
        """Make room for a request of at most so many tokens; gives the option that forbids it, or nothing."""
        with self.lock:
            prompt = self.prompt_tokens + self.reserved_prompt + prompt_tokens
            completion = self.completion_tokens + self.reserved_completion + completion_tokens
            if self.max_requests is not None and self.requests >= self.max_requests:
                return f"max_requests={self.max_requests}"
            if self.max_tokens is not None and prompt + completion > self.max_tokens:
                return f"max_tokens={self.max_tokens}"
            if self.max_cost is not None and self.price(prompt, completion) > self.max_cost:
                return f"max_cost={self.max_cost:g}"
            self.requests += 1
            self.reserved_prompt += prompt_tokens
            self.reserved_completion += completion_tokens
            return ""

    def release(self, prompt_tokens: int, completion_tokens: int) -> None:
        """The request with this reservation is over."""
        with self.lock:
            self.reserved_prompt -= prompt_tokens
            self.reserved_completion -= completion_tokens

    def spend(self, retries: int, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """What a request cost beside itself."""
        with self.lock:
            self.requests += retries
            self.prompt_tokens += prompt_tokens
            self.completion_tokens += completion_tokens


class Asking:
    """The requests that are waiting, on their way, and failed."""

    def __init__(
        self,
        endpoint: Endpoint,
        client: "OpenAI",
        kept: Kept,
        spending: Spending,
        missing: Mapping[str, Request],
        answered: bool = False,
    ) -> None:
        """`answered`: the endpoint is known to answer, so what it refuses is a prompt's own fault."""
        self.endpoint, self.client, self.kept, self.spending, self.missing = endpoint, client, kept, spending, missing
        self.queue = deque(missing)
        self.failed: dict[str, Answer] = {}
        self.paid: dict[str, tuple[int, int]] = {}
        """Prompt and completion tokens of each request, of all its answers."""
        self.asked_again: set[str] = set()
        self.failures_in_a_row = 0
        self.answered = answered
        self.stop: Exception | None = None

    def run(self, pool: Executor, concurrency: int, through: Callable[[int], None] = lambda count: None) -> None:
        """Until nothing is waiting, or `stop` says why it ended; then what is on its way is awaited and kept.

        `through` hears how many more are over.
        """
        running: dict[Future[tuple[Answer, int]], str] = {}
        while self.queue or running:
            limit = ""
            while self.queue and len(running) < concurrency and not self.stop:
                key = self.queue[0]
                self.kept.refresh()
                if key in self.kept:  # another process was faster
                    self.queue.popleft()
                    through(1)
                    continue
                limit = self.spending.reserve(*self._most(key))
                if limit:
                    break
                self.queue.popleft()
                running[pool.submit(self._ask, key)] = key
            if limit and not running:
                self.stop = ConfigError(f"{limit}: the budget is used up; raise it to go on")
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                through(self._done(running.pop(future), future))

    def _most(self, key: str) -> tuple[int, int]:
        return rough_tokens(self.missing[key]), self.endpoint.max_new_tokens

    def _ask(self, key: str) -> tuple[Answer, int]:
        answer, retries = answer_to(self.missing[key], key, self.client)
        self.kept.append(answer)  # here, so that even an interrupt loses nothing that is paid
        return answer, retries

    def _done(self, key: str, future: "Future[tuple[Answer, int]]") -> int:
        """Count what a request cost; gives 1 where it is through, 0 where it is to be asked again."""
        self.spending.release(*self._most(key))
        error = future.exception()
        if error is not None:
            return self._failed(key, error)
        answer, retries = future.result()
        self.spending.spend(retries, answer.prompt_tokens, answer.completion_tokens)
        before = self.paid.get(key, (0, 0))
        self.paid[key] = (before[0] + answer.prompt_tokens, before[1] + answer.completion_tokens)
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
        self.spending.spend(tries_after(error, self.endpoint))
        # a text that the endpoint refuses stops nothing, unless it never took any
        if not (is_of_the_prompt(error) and self.answered):
            self.failures_in_a_row += 1
        if is_final(error) or self.failures_in_a_row >= GIVE_UP_AFTER:
            self.stop = self.stop or LLMOpsError(said)
        return 1
