"""An OpenAI-compatible chat endpoint: what is sent to it, what comes back, and what its errors mean."""

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlflow_llmops.endpoint.answers import Answer
from mlflow_llmops.errors import ConfigError

if TYPE_CHECKING:
    from openai import OpenAI

OPENAI_URL = "https://api.openai.com/v1"

Request = dict[str, Any]
"""The body of a chat completion request."""


@dataclass(frozen=True)
class Endpoint:
    """How to ask one model of an endpoint. It holds no key: that is read from `key_variable` when it is asked.

    The client retries 429, 5xx, closed connections and timeouts with backoff, or after as long as Retry-After says.
    """

    model: str
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    max_new_tokens: int = 64
    temperature: float | None = 0.0
    timeout: float = 60.0
    max_retries: int = 5
    system: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of every request, such as top_p."""
    option: str = "endpoint_model="
    """How the user named the model, for errors."""

    @property
    def url(self) -> str:
        """Raises ConfigError for one that cannot be, or that holds a secret."""
        return checked_url(self.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL).removesuffix("/")

    def request(self, prompt: str) -> Request:
        """The body that is sent for `prompt`."""
        # OpenAI's newer models refuse the one name, other servers do not know the other
        limit = "max_completion_tokens" if self.url == OPENAI_URL else "max_tokens"
        sampling = {} if self.temperature is None else {"temperature": self.temperature}
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": prompt})
        return {"model": self.model, "messages": messages, limit: self.max_new_tokens, **sampling, **self.more}

    def key_of(self, request: Request) -> str:
        """SHA-256 over all that an answer depends on."""
        return sha256(json.dumps([self.url, request], sort_keys=True).encode()).hexdigest()

    def secret(self) -> str:
        """The key, from the environment. Raises ConfigError where it is not there."""
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise ConfigError(
                f"key_variable={self.key_variable}: no such variable is set; export it with the endpoint's key "
                "(any text will do where the endpoint asks for none)"
            )
        return key

    def client(self) -> "OpenAI":
        """What asks it, safe to share between threads."""
        from openai import OpenAI

        return OpenAI(
            api_key=self.secret(),
            base_url=self.url,
            timeout=self.timeout,
            max_retries=self.max_retries,
            http_client=quiet_http_client(),
        )


def quiet_http_client() -> Any:
    """OpenAI's own HTTP client, but what echoes the key in an error is read without it: traces keep errors."""
    from openai import DefaultHttpxClient

    def masked(response: Any) -> None:
        if response.status_code >= 400:
            key = response.request.headers.get("authorization", "").removeprefix("Bearer ")
            body = response.read()
            if key and key.encode() in body:
                response._content = body.replace(key.encode(), b"***")

    return DefaultHttpxClient(event_hooks={"response": [masked]})


def checked_url(url: str) -> str:
    """`url` as it is. Raises ConfigError, without showing it, where it is none or holds what must not be stored."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"base_url={url!r}: write http://host:port/v1 or https://...")
    if parts.username or parts.password or parts.query:
        raise ConfigError(
            "base_url: it holds a user, a password or a query, which would be stored with the run; give the address "
            "alone, and the key in the variable that key_variable names"
        )
    return url


def checked_variable(name: str) -> str:
    """`name` as it is. Raises ConfigError, without showing it, where it is no variable's name: it may be the key."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ConfigError("key_variable: give the name of an environment variable, as OPENAI_API_KEY, not the key")
    return name


def answer_to(request: Request, key: str, client: "OpenAI") -> tuple[Answer, int]:
    """Ask once; gives the answer and how often the client had to try again. Raises openai.OpenAIError."""
    start = time.monotonic()
    raw = client.chat.completions.with_raw_response.create(**request)
    try:
        parsed: Any = raw.parse()
    except ValueError:
        parsed = None
    content, reason, error = _content(parsed)
    usage: Any = getattr(parsed, "usage", None)
    counted = getattr(usage, "prompt_tokens", None) is not None
    answer = Answer(
        key=key,
        answer=content,
        finish_reason=reason,
        prompt_tokens=usage.prompt_tokens if counted else rough_tokens(request),
        completion_tokens=(usage.completion_tokens or 0) if counted else len(content or "") // 4 + 1,
        estimated=not counted,
        seconds=round(time.monotonic() - start, 3),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        error=error,
    )
    return answer, raw.retries_taken


def rough_tokens(request: Request) -> int:
    """Of the prompt: four letters are a token, more or less, in English."""
    return sum(len(message["content"]) for message in request["messages"]) // 4 + 1


def _content(parsed: Any) -> tuple[str | None, str, str]:
    """The answer's text, why it ended, and what is wrong with it."""
    if not hasattr(parsed, "choices"):
        return None, "", "the response is no JSON of a chat completion"
    if not parsed.choices or getattr(parsed.choices[0], "message", None) is None:
        return None, "", "the response holds no choices"
    choice = parsed.choices[0]
    if choice.message.content is None:
        return None, choice.finish_reason or "", getattr(choice.message, "refusal", None) or "the response is empty"
    return choice.message.content, choice.finish_reason or "", ""


def is_final(error: Exception) -> bool:
    """It would come for every other request as well."""
    return getattr(error, "status_code", None) in (401, 403, 404)


def is_of_the_prompt(error: Exception) -> bool:
    """It may come for this request alone: too long, or against the endpoint's rules."""
    return getattr(error, "status_code", None) in (400, 413, 422)


def tries_after(error: Exception, endpoint: Endpoint) -> int:
    """How often the client tried again before it gave up with `error`."""
    status = getattr(error, "status_code", None)
    retried = status in (408, 409, 429) or (status or 500) >= 500
    return endpoint.max_retries if retried else 0


def explained(error: Exception, endpoint: Endpoint) -> str:
    """One line that names the option to change. It never holds the key, even where the endpoint echoes it."""
    from openai import APITimeoutError

    named, option = f"{endpoint.option}{endpoint.model}", endpoint.option.partition("=")[0]
    match getattr(error, "status_code", None):
        case 401:
            return f"key_variable={endpoint.key_variable}: {endpoint.url} does not accept the key (401); export another"
        case 403:
            return (
                f"key_variable={endpoint.key_variable}: the key may not use model {endpoint.model} at {endpoint.url} "
                f"(403); ask for access, or change {option}"
            )
        case 404:
            return f"{named}: {endpoint.url} knows no such model, or no chats (404); check {option} and base_url"
        case None if isinstance(error, APITimeoutError):
            return (
                f"timeout={endpoint.timeout:g}: {endpoint.url} gave no answer in that time; raise timeout or try later"
            )
        case None:
            cause = error.__cause__ or error
            return f"base_url={endpoint.url} cannot be reached ({_short(cause, endpoint)}); check base_url"
        case 429:
            return (
                f"concurrency: {endpoint.url} refuses so many requests, or the quota is used up (429: "
                f"{_short(error, endpoint)}); lower concurrency, raise max_retries, or try later"
            )
        case status:
            return f"{named}: {endpoint.url} answered {status}: {_short(error, endpoint)}"


def _short(error: BaseException, endpoint: Endpoint) -> str:
    text = " ".join(str(error).split()).replace(endpoint.secret(), "***")[:200]
    return text or type(error).__name__
