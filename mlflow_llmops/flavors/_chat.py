"""What an OpenAI-compatible endpoint answers as an MLflow pyfunc, a row at a time."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from mlflow_llmops.endpoint.answers import Answer
from mlflow_llmops.endpoint.asking import Asking, Spending
from mlflow_llmops.endpoint.client import Endpoint, Request
from mlflow_llmops.endpoint.prompt import filled
from mlflow_llmops.errors import LLMOpsError
from mlflow_llmops.flavors._chat_settings import ChatSettings
from mlflow_llmops.flavors._columns import rows_of
from mlflow_llmops.flavors._nullable import nullable

PRICE = {"prompt_tokens": "long", "completion_tokens": "long", "cost": "double", "error": "string"}
"""The columns that every row has, at the end."""


def signature_of(settings: ChatSettings) -> ModelSignature:
    """One column without a name where the prompt has one, so that a list and a column of any name fit."""
    columns = settings.columns
    inputs: list[Any] = [ColSpec("string", None if len(columns) == 1 else name) for name in columns]
    structure = settings.structure
    answers = structure.specs if structure else [ColSpec("string", "answer", required=False)]
    outputs: list[Any] = [*answers, *(ColSpec(type_, name, required=False) for name, type_ in PRICE.items())]
    params = [
        ParamSpec("max_new_tokens", "long", settings.max_new_tokens),
        ParamSpec("temperature", "double", settings.temperature),
        ParamSpec("top_p", "double", settings.top_p),
        ParamSpec("stop", "string", list(settings.stop), shape=(-1,)),
        ParamSpec("seed", "long", settings.seed),
    ]
    return ModelSignature(Schema(inputs), Schema(outputs), ParamSchema(params))


class ChatPredictor:
    """`predict` is what MLflow, its server and its Spark UDF call."""

    def __init__(self, settings: ChatSettings) -> None:
        self.settings = settings

    def get_raw_model(self) -> "ChatPredictor":
        """For `PyFuncModel.get_raw_model`."""
        return self

    def forgetful(self) -> "ChatPredictor":
        """The same, asking for every row anew: a stopwatch would time the memory."""
        return ChatPredictor(replace(self.settings, remember=0))

    def requests(self, model_input: Any, params: dict[str, Any] | None = None) -> list[str]:
        """A hash of all that would be sent for each row, empty for a row that is not asked about."""
        endpoint = self._endpoint(params or {})
        rows = rows_of(model_input, self.settings.columns)
        return [endpoint.key_of(self._request(endpoint, row)) if isinstance(row, dict) else "" for row in rows]

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A row for each row: the answer, or the columns of the schema; what it cost; and the error of one that failed.

        A prompt that stands in several rows is asked once, and its first row has the cost.

        Raises ConfigError where the key is not in the environment.
        """
        endpoint = self._endpoint(params or {})
        rows = rows_of(model_input, self.settings.columns)
        requests = [self._request(endpoint, row) if isinstance(row, dict) else None for row in rows]
        keys = [endpoint.key_of(request) if request else "" for request in requests]
        wanted = {key: request for key, request in zip(keys, requests, strict=True) if request}
        answers, paid = _asked(self.settings, endpoint, wanted)
        return self._table(rows, keys, answers, paid)

    def spent(self) -> Spending:
        """What this process has spent with these settings."""
        return _process(self.settings, os.getpid()).spending

    def _endpoint(self, params: Mapping[str, Any]) -> Endpoint:
        return self.settings.endpoint(params)

    def _request(self, endpoint: Endpoint, row: Mapping[str, str]) -> Request:
        return endpoint.request(filled(self.settings.prompt, row))

    def _table(
        self,
        rows: Sequence[dict[str, str] | str],
        keys: Sequence[str],
        answers: Mapping[str, Answer],
        paid: dict[str, tuple[int, int]],
    ) -> pd.DataFrame:
        structure = self.settings.structure
        columns = structure.columns if structure else {"answer": "string"}
        made = []
        for row, key in zip(rows, keys, strict=True):
            answer = Answer("", None, error=row) if isinstance(row, str) else answers[key]
            values, error = dict[str, Any](), answer.error
            if answer.answer is not None:
                values, error = structure.read(answer.answer) if structure else ({"answer": answer.answer}, "")
            tokens = paid.pop(key, (0, 0))
            cost = self.settings.spending().price(*tokens) if self.settings.priced else None
            prices = dict(zip(PRICE, (*tokens, cost, error or None), strict=True))
            made.append({**values, **prices})
        return pd.DataFrame(
            {name: nullable([row.get(name) for row in made], type_) for name, type_ in {**columns, **PRICE}.items()}
        )


class _Memory:
    """The answers that a process keeps, the newest ones."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._answers: dict[str, Answer] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Answer:
        return self._answers[key]

    def append(self, answer: Answer) -> None:
        if answer.answer is not None:
            self._answers[answer.key] = answer

    def refresh(self) -> None:
        """Nobody else writes into it."""

    def forget(self) -> None:
        for key in list(self._answers)[: max(0, len(self._answers) - self._most)]:
            self._answers.pop(key, None)


class _Process:
    """What all models with the same settings share in a process, since MLflow loads one again for each Spark task."""

    def __init__(self, settings: ChatSettings) -> None:
        self.spending = settings.spending()
        self.memory = _Memory(settings.remember)
        self.pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="llmops-chat")
        self._client: tuple[str, Any] | None = None

    def client(self, endpoint: Endpoint) -> Any:
        """The same until the key changes."""
        if self._client is None or self._client[0] != endpoint.secret():
            self._client = endpoint.secret(), endpoint.client()
        return self._client[1]


@lru_cache(maxsize=16)
def _process(settings: ChatSettings, process: int) -> _Process:
    """`process` is in the key because threads do not survive a fork."""
    return _Process(settings)


def _asked(
    settings: ChatSettings, endpoint: Endpoint, wanted: Mapping[str, Request]
) -> tuple[dict[str, Answer], dict[str, tuple[int, int]]]:
    """An answer or error for each key, and the tokens that each cost now."""
    shared = _process(settings, os.getpid())
    # a call has its own memory: what it needs is not forgotten meanwhile
    memory = _Memory(len(wanted))
    for key in wanted:
        if key in shared.memory:
            memory.append(shared.memory[key])
    missing = {key: request for key, request in wanted.items() if key not in memory}
    if not missing:
        return {key: memory[key] for key in wanted}, {}
    asking = Asking(endpoint, shared.client(endpoint), memory, shared.spending, missing, len(missing) < len(wanted))
    asking.run(shared.pool, settings.concurrency)
    if asking.stop and not isinstance(asking.stop, LLMOpsError):
        raise asking.stop
    answers = {key: memory[key] if key in memory else _failed(asking, key) for key in wanted}
    for answer in answers.values():
        shared.memory.append(answer)
    shared.memory.forget()
    return answers, asking.paid


def _failed(asking: Asking, key: str) -> Answer:
    failed = asking.failed.get(key)
    return failed or replace(Answer(key, None), error=f"not asked: {asking.stop}")
