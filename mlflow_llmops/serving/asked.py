"""The bodies of requests as OpenAI's clients send them; what cannot be answered is refused, not ignored."""

import json
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlflow_llmops.serving.refusals import Refused

JSON = "application/json"


class Body(BaseModel):
    """Fields that change nothing here, such as `user`, are let pass."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)
    model: str


class Part(BaseModel):
    type: Literal["text"]
    text: str


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = ""

    @property
    def plain(self) -> dict[str, str]:
        said = self.content or ""
        return {"role": self.role, "content": said if isinstance(said, str) else "".join(each.text for each in said)}


class StreamOptions(BaseModel):
    include_usage: bool = False


class Generation(Body):
    """What both ways of asking for text share."""

    max_tokens: Annotated[int, Ge(1)] | None = None
    temperature: Annotated[float, Ge(0), Le(2)] | None = None
    top_p: Annotated[float, Gt(0), Le(1)] | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], MaxLen(16)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Ge(1), Le(1)] | None = 1
    logprobs: Literal[False] | None = None
    frequency_penalty: Annotated[float, Ge(0), Le(0)] | None = None
    presence_penalty: Annotated[float, Ge(0), Le(0)] | None = None
    logit_bias: Annotated[dict[str, float], MaxLen(0)] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ResponseFormat(BaseModel):
    type: Literal["text"]


class Chat(Generation):
    messages: Annotated[list[Message], MinLen(1)]
    max_completion_tokens: Annotated[int, Ge(1)] | None = None
    tools: Annotated[list[Any], MaxLen(0)] | None = None
    response_format: ResponseFormat | None = None


class Completing(Generation):
    prompt: str | Annotated[list[str], MinLen(1)]
    best_of: Annotated[int, Ge(1), Le(1)] | None = None
    echo: Literal[False] | None = None
    suffix: Literal[""] | None = None


class Texts(Body):
    """For labels and for vectors."""

    texts: Annotated[str | Annotated[list[str], MinLen(1)], Field(alias="input")]

    @property
    def listed(self) -> list[str]:
        return [self.texts] if isinstance(self.texts, str) else self.texts


class Embedding(Texts):
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: None = None


Kind = TypeVar("Kind", bound=Body)


def read(kind: type[Kind], body: bytes, content_type: str) -> Kind:
    """Raises Refused, naming the field, for what is no such body."""
    if content_type.partition(";")[0].strip().lower() != JSON:
        raise Refused(415, f"Content-Type is {content_type or 'missing'}; send {JSON}", None, "content_type")
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON: {str(error)[:200]}", None, "json") from error
    try:
        return kind.model_validate(parsed)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # of a union, the part after the field's name says which member was tried
        where = ".".join(str(part) for part in first["loc"][:1]) or "body"
        raise Refused(400, f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}", where) from error
