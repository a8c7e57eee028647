"""The parameters of a verb, read off its function and its methods' fields: said once, shown everywhere."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, get_type_hints

from mlflow_llmops.methods import table
from mlflow_llmops.methods._launch import check_alone
from mlflow_llmops.methods.option import AUTO, checked, described
from mlflow_llmops.steps import STEPS
from mlflow_llmops.steps._options import Outcome

GIVEN = ("verb", "options", "made_from_counts")
"""Parameters of the functions that are no options: other steps, the verb's name or the methods' fields fill them."""


@dataclass(frozen=True)
class Parameter:
    """`default` is a string as a terminal has it, or None where a value must be given."""

    name: str
    text: str
    default: str | None
    annotation: Any = None
    """None for the field of a method, which checks it itself."""


def function_of(verb: str) -> Callable[..., Outcome]:
    """Import the verb's function."""
    module, _, name = STEPS[verb].path.partition(":")
    found: Callable[..., Outcome] = getattr(import_module(module), name)
    return found


def parameters_of(verb: str) -> tuple[Parameter, ...]:
    """Those of the function, in its order, then the fields of the verb's methods; required ones first."""
    found = declared(function_of(verb))
    choices = [method.removeprefix(f"{verb}.") for method in table.names(verb)]
    for i, parameter in enumerate(found):
        if parameter.name == "method":
            found[i] = replace(parameter, text=f"{parameter.text}: {', '.join(choices)}", default=choices[0])
    if STEPS[verb].has_methods:
        found += _fields_of_methods(verb)
    return tuple(sorted(found, key=lambda parameter: parameter.default is not None))


def declared(function: Callable[..., Outcome]) -> list[Parameter]:
    """Those of any function whose parameters say their texts, as a project's own step; in its order."""
    hints = get_type_hints(function, include_extras=True)
    return [
        Parameter(name, described(hints[name]), _as_text(parameter.default), hints[name])
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in GIVEN
    ]


def call(function: Callable[..., Outcome], values: Mapping[str, str]) -> Outcome:
    """Call such a function with values as strings. Raises ConfigError, naming the option, for a bad one."""
    check_alone(function.__name__)
    return function(
        **{
            each.name: checked(each.name, each.annotation, values.get(each.name, each.default))
            for each in declared(function)
        }
    )


def run(verb: str, values: Mapping[str, str]) -> Outcome:
    """Call the verb's function with values as strings. Raises ConfigError, naming the option, for a bad one."""
    arguments: dict[str, Any] = {}
    options: dict[str, str] = {}
    for parameter in parameters_of(verb):
        value = values.get(parameter.name, parameter.default)
        if parameter.annotation is not None:
            arguments[parameter.name] = checked(parameter.name, parameter.annotation, value)
        elif value not in (None, AUTO, ""):
            options[parameter.name] = str(value)
    if STEPS[verb].has_methods:
        arguments |= {"verb": verb, "options": options}
    else:
        check_alone(verb)
    return function_of(verb)(**arguments)


def _fields_of_methods(verb: str) -> list[Parameter]:
    """Each field once, with the methods that have it and their defaults; `auto` leaves it to the method."""
    defaults: dict[str, dict[str, list[str]]] = {}
    for method in table.names(verb):
        for option in table.method_class(method).options():
            said = f"{method.removeprefix(verb + '.')}: {_as_text(option.default)}"
            defaults.setdefault(option.name, {}).setdefault(option.text, []).append(said)
    return [
        Parameter(name, "; ".join(f"{text} ({', '.join(each)})" for text, each in texts.items()), AUTO)
        for name, texts in defaults.items()
    ]


def _as_text(default: Any) -> str | None:
    if default is inspect.Parameter.empty:
        return None
    return AUTO if default is None else str(default)
