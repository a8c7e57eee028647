"""A JSON schema as columns: what the endpoint is told to write, and what is made of what it wrote."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from mlflow.types import ColSpec
from mlflow.types.schema import Array, DataType
from pydantic import ConfigDict, ValidationError, create_model

from mlflow_llmops.errors import ConfigError

SCALARS: dict[str, tuple[str, type]] = {
    "string": ("string", str),
    "integer": ("long", int),
    "number": ("double", float),
    "boolean": ("boolean", bool),
}
"""From JSON's type to MLflow's and Python's."""


@dataclass(frozen=True)
class Structure:
    """The top-level properties of a schema, each a column: scalars and arrays of scalars with their types, everything
    deeper as JSON text."""

    schema: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.schema.get("type") != "object" or not self.properties or not isinstance(self.properties, Mapping):
            raise ConfigError('schema: it must be of {"type": "object"} and have properties, which become the columns')
        unfit = [name for name in self.properties if not name.isidentifier() or name.startswith("_")]
        if unfit:
            raise ConfigError(f"schema: the property {unfit[0]!r} cannot name a column; use letters, digits and _")
        unread = [name for name, of in self.properties.items() if not _is_schema(of)]
        if unread:
            raise ConfigError(f'schema: the property {unread[0]!r} is no JSON schema; write {{"type": "string"}} or so')
        if not isinstance(self.schema.get("required", []), list):
            raise ConfigError("schema: required is a list of properties")

    @property
    def properties(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.schema.get("properties") or {}
        return found

    @property
    def columns(self) -> dict[str, str]:
        """From a column's name to MLflow's type of it, `array` for an array of scalars."""
        return {name: _column(of)[0] for name, of in self.properties.items()}

    @property
    def specs(self) -> list[ColSpec]:
        """The same for a signature; a row that failed has nulls."""
        return [ColSpec(_column(of)[1], name, required=False) for name, of in self.properties.items()]

    @property
    def response_format(self) -> dict[str, Any]:
        """The field of the request. Endpoints hold to it strictly where the schema leaves nothing open."""
        closed = self.schema.get("additionalProperties") is False
        strict = closed and set(self.schema.get("required", ())) == set(self.properties)
        named = {"name": str(self.schema.get("title") or "answer"), "schema": self.schema}
        return {"type": "json_schema", "json_schema": {**named, **({"strict": True} if strict else {})}}

    def read(self, answer: str) -> tuple[dict[str, Any], str]:
        """The columns of an answer, and what is wrong with it."""
        try:
            found = self._reader.model_validate_json(_unfenced(answer))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            return {}, f"the answer does not fit the schema: {where + ': ' if where else ''}{first['msg']}"
        values = found.model_dump(mode="json")
        return {name: self._value(name, values[name]) for name in self.properties}, ""

    def _value(self, name: str, value: Any) -> Any:
        deep = _column(self.properties[name])[2] is Any
        return json.dumps(value) if deep and value is not None else value

    @cached_property
    def _reader(self) -> Any:
        required = set(self.schema.get("required", ()))
        closed = self.schema.get("additionalProperties") is False
        fields: dict[str, Any] = {
            name: (_column(of)[2], ...) if name in required else (_column(of)[2] | None, None)
            for name, of in self.properties.items()
        }
        config = ConfigDict(strict=True, extra="forbid" if closed else "ignore", protected_namespaces=())
        return create_model("Answer", __config__=config, **fields)


def _is_schema(of: Any) -> bool:
    """As far as a column is made of it."""
    if not isinstance(of, Mapping) or not isinstance(of.get("items") or {}, Mapping):
        return False
    return "enum" not in of or (isinstance(of["enum"], list) and len(of["enum"]) > 0)


def _column(of: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """A property's type as a name, in a signature and in Python."""
    kind = of.get("type")
    if "enum" in of and all(isinstance(value, str) for value in of["enum"]):
        return "string", DataType.string, Literal[tuple(of["enum"])]
    if isinstance(kind, str) and kind in SCALARS:
        name, python = SCALARS[kind]
        return name, DataType[name], python
    item = (of.get("items") or {}).get("type") if kind == "array" else None
    if isinstance(item, str) and item in SCALARS:
        name, python = SCALARS[item]
        return "array", Array(DataType[name]), list[python]  # type: ignore[valid-type]
    return "string", DataType.string, Any


def _unfenced(answer: str) -> str:
    """Without the Markdown fence that models put around JSON."""
    text = answer.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text.removeprefix("```").removesuffix("```").removeprefix("json").strip()
    return text
