"""A teacher behind an endpoint: its answers on the disk, what it cost in the run, and an error where it stops."""

import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm.auto import tqdm

from mlflow_llmops import names
from mlflow_llmops.endpoint.answers import Answer, AnswersFile, answers_path
from mlflow_llmops.endpoint.asking import Asking, Spending
from mlflow_llmops.endpoint.client import Endpoint, Request, rough_tokens
from mlflow_llmops.errors import LLMOpsError
from mlflow_llmops.methods import _session

RECORD_SECONDS = 10.0


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
        try:
            failed = _asked(endpoint, kept, spending, missing, concurrency, known)
        finally:
            _record(spending)
        kept.refresh()
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


def _asked(
    endpoint: Endpoint,
    kept: AnswersFile,
    spending: Spending,
    missing: Mapping[str, Request],
    concurrency: int,
    known: int,
) -> dict[str, Answer]:
    """Ask what is missing; gives the requests that failed."""
    total, recorded = len(missing) + known, time.monotonic()
    bar = tqdm(total=total, initial=known, desc=f"answers of {endpoint.model}")

    def through(count: int) -> None:
        nonlocal recorded
        bar.update(count)
        bar.set_postfix(requests=spending.requests, tokens=spending.tokens)
        if time.monotonic() - recorded >= RECORD_SECONDS:
            _record(spending)
            recorded = time.monotonic()

    client = endpoint.client()
    with bar, client, ThreadPoolExecutor(concurrency) as pool:
        asking = Asking(endpoint, client, kept, spending, missing, known > 0)
        asking.run(pool, concurrency, through)
    stop = asking.stop
    if not stop and len(asking.failed) == total:
        stop = LLMOpsError(next(iter(asking.failed.values())).error)
    if isinstance(stop, LLMOpsError):
        # with what it means for the work done so far
        kept.refresh()
        unanswered = sum(key not in kept for key in missing)
        raise type(stop)(
            f"{stop}. Of {len(missing)} prompts, {len(missing) - unanswered} were answered and are kept, {unanswered} "
            "are missing; run it again to go on from there: what is kept costs nothing"
        )
    if stop:
        raise stop
    return asking.failed


def _record(spending: Spending) -> None:
    """Tell the run."""
    spent = {names.REQUESTS: spending.requests, names.PROMPT_TOKENS: spending.prompt_tokens}
    spent[names.COMPLETION_TOKENS] = spending.completion_tokens
    _session.current().record({name: float(value) for name, value in spent.items()}, spending.requests)
