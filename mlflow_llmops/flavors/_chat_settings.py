"""How a logged model asks its endpoint: all but the key."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_llmops.endpoint.asking import Spending
from mlflow_llmops.endpoint.client import Endpoint, checked_url, checked_variable
from mlflow_llmops.endpoint.prompt import columns_of
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.flavors._structure import Structure

SETTINGS = "settings.json"
FIXED = ("model", "messages", "stream", "n")
"""Fields of a request that are ours."""
OURS = ("answer", "prompt_tokens", "completion_tokens", "cost", "error")


@dataclass(frozen=True)
class ChatSettings:
    """What `settings.json` holds. Prices are of a million tokens; budgets are those of a process.

    Raises ConfigError, naming the option, for a value that cannot work.
    """

    model: str
    prompt: str
    base_url: str | None = None
    """None: OPENAI_BASE_URL, or OpenAI; the one that it was is kept, so that no other machine asks another endpoint."""
    key_variable: str = "OPENAI_API_KEY"
    system: str | None = None
    schema: str | None = None
    """A JSON schema, as text."""
    max_new_tokens: int = 256
    temperature: float | None = 0.0
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    extra: str | None = None
    """A JSON object of further fields of the request's body, as text."""
    concurrency: int = 4
    timeout: float = 60.0
    max_retries: int = 5
    remember: int = 10_000
    prompt_price: float | None = None
    completion_price: float | None = None
    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    trace: bool = False

    def __post_init__(self) -> None:
        checked_variable(self.key_variable)
        if not self.model.strip():
            raise ConfigError("endpoint_model='': name the endpoint's model, as gpt-5-mini")
        object.__setattr__(self, "base_url", Endpoint(self.model, self.base_url).url)
        checked_url(self.url)
        if not self.columns:
            raise ConfigError(f"prompt={self.prompt[:80]!r}: it names no column; write {{text}} where the text goes")
        if self.max_cost is not None and not self.priced:
            raise ConfigError(
                f"max_cost={self.max_cost:g}: give prompt_price and completion_price, or no cost is known"
            )
        if self.priced and None in (self.prompt_price, self.completion_price):
            raise ConfigError("prompt_price and completion_price belong together; give both, 0 where a token is free")
        if fixed := set(self.more({}).get("extra_body", ())) & set(FIXED):
            raise ConfigError(f"extra: {', '.join(sorted(fixed))} cannot be set there; they are what one answer takes")
        structure = self.structure
        if structure and set(structure.properties) & set(OURS):
            raise ConfigError(f"schema: {', '.join(OURS)} are columns of ours; name the property otherwise")

    @property
    def url(self) -> str:
        return self.base_url or ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that the prompt names."""
        return columns_of(self.prompt)

    @property
    def priced(self) -> bool:
        return self.prompt_price is not None or self.completion_price is not None

    @cached_property
    def structure(self) -> Structure | None:
        return Structure(_object("schema", self.schema)) if self.schema else None

    def spending(self) -> Spending:
        """A fresh account."""
        prices = self.prompt_price or 0.0, self.completion_price or 0.0
        return Spending(self.max_requests, self.max_tokens, self.max_cost, *prices)

    def endpoint(self, params: Mapping[str, Any]) -> Endpoint:
        """With the params of a call instead of our own values."""
        given = {name: value for name, value in params.items() if value is not None}
        temperature = given.get("temperature", self.temperature)
        return Endpoint(
            self.model,
            self.base_url,
            self.key_variable,
            int(given.get("max_new_tokens", self.max_new_tokens)),
            None if temperature is None else float(temperature),
            self.timeout,
            self.max_retries,
            self.system,
            self.more(given),
        )

    def more(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a request that only some have."""
        stop = given.get("stop", self.stop)
        listed = [stop] if isinstance(stop, str) else [str(each) for each in np.asarray(stop).tolist()]
        top_p, seed = given.get("top_p", self.top_p), given.get("seed", self.seed)
        found: dict[str, Any] = {} if top_p is None else {"top_p": float(top_p)}
        found |= {"stop": listed} if listed else {}
        found |= {} if seed is None else {"seed": int(seed)}
        found |= {"response_format": self.structure.response_format} if self.structure else {}
        return found | ({"extra_body": _object("extra", self.extra)} if self.extra else {})

    def write(self, folder: Path) -> None:
        """Raises ConfigError where the key stands in them."""
        text = json.dumps(asdict(self), indent=2)
        self.refuse_key(text)
        (folder / SETTINGS).write_text(text, encoding="utf-8")

    def refuse_key(self, *texts: str) -> None:
        """Raises ConfigError where the key stands in what is about to be stored."""
        refuse_key(self.key_variable, *texts)

    @classmethod
    def read(cls, folder: Path) -> "ChatSettings":
        return cls.of(json.loads((folder / SETTINGS).read_text(encoding="utf-8")))

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "ChatSettings":
        """From what was stored."""
        stored = {**stored, "stop": tuple(stored.get("stop", ()))}
        return cls(**{field.name: stored[field.name] for field in fields(cls) if field.name in stored})


def refuse_key(variable: str, *texts: str) -> None:
    """Raises ConfigError where the key in that variable stands in what is about to be stored."""
    key = os.environ.get(variable, "").strip()
    if len(key) >= 8 and any(key in text for text in texts):
        raise ConfigError(f"the key in {variable} stands in an option, which would be stored; take it out")


def _object(option: str, text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(f"{option}: no JSON ({error})") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{option}: give a JSON object, {{...}}")
    return found
