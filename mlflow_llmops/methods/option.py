"""An option: what it is for, its default, and the check of its value. Nothing here needs a network's library."""

from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mlflow_llmops.errors import ConfigError


@dataclass(frozen=True)
class Option:
    """One field of a method, as the command line, MLproject and the documentation show it."""

    name: str
    text: str
    default: Any


AUTO = "auto"
"""How an option that may be None is written where only strings are: in MLproject and on the command line."""


def checked(name: str, annotation: Any, value: Any) -> Any:
    """`value` as `annotation` wants it, from its own type or from a string.

    Raises ConfigError, naming the option, where it does not fit.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
    try:
        return adapter.validate_python(None if value in (AUTO, "") and _may_be_none(annotation) else value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ConfigError(f"{name}={value!r}: {reason[0].lower()}{reason[1:]}") from error


def described(annotation: Any) -> str:
    """The text in `Annotated[..., "text", ...]`."""
    return next(part for part in annotation.__metadata__ if isinstance(part, str))


def _may_be_none(annotation: Any) -> bool:
    return type(None) in get_args(get_args(annotation)[0])
