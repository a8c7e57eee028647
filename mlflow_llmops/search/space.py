"""The chains of methods that a search may try: steps one after the other, each with its alternatives."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods import table
from mlflow_llmops.methods.method import Method
from mlflow_llmops.methods.prune._pruning import Pruning
from mlflow_llmops.methods.training import Training

NONE = "none"
WRITTEN = re.compile(r"(?P<name>[\w.]+)\s*(\((?P<options>.*)\))?")


@dataclass(frozen=True)
class Part:
    """One method of a chain with the options that it was written with."""

    name: str
    method: Method
    student_given: bool = False
    """A distillation that brings its own student, in place of what the chain has cut so far."""

    @property
    def teaches(self) -> bool:
        """It trains what the chain has cut so far, by the model that the search began with."""
        return self.name.startswith("distill.") and not self.student_given

    @property
    def trains(self) -> bool:
        """It costs passes over the train split."""
        return isinstance(self.method, Training) and self.method.epochs > 0 and self._recovery != NONE

    @cached_property
    def options(self) -> dict[str, object]:
        """All of them, those with their defaults too; a student that the chain gives is none."""
        found = {option.name: getattr(self.method, option.name) for option in self.method.options()}
        return {name: value for name, value in found.items() if not (self.teaches and name == "student")}

    @property
    def _recovery(self) -> str:
        return str(getattr(self.method, "recovery", ""))

    def __str__(self) -> str:
        return self._written

    @cached_property
    def _written(self) -> str:
        defaults = {option.name: option.default for option in self.method.options()}
        given = [f"{name}={value}" for name, value in self.options.items() if value != defaults[name]]
        return f"{self.name}({'; '.join(given)})" if given else self.name

    def untrained(self) -> "Part | None":
        """The same shape without training; None where training is all that it does."""
        if not self.trains:
            return self
        if self.teaches or not isinstance(self.method, Training):
            return None
        changed = {"recovery": NONE} if isinstance(self.method, Pruning) else {"epochs": 0.0}
        return replace(self, method=replace(self.method, **changed))


Chain = tuple[Part, ...]


def said(chain: Chain) -> str:
    """As it is written, and as the same chain is known again."""
    return " > ".join(map(str, chain))


def is_trained(chain: Chain) -> bool:
    return any(part.trains for part in chain)


def sketch_of(chain: Chain) -> Chain:
    """The chain without its training: as fast and as large, whatever it answers."""
    return tuple(shape for part in chain if (shape := part.untrained()) is not None)


@dataclass(frozen=True)
class Space:
    """Each step's alternatives, from what is written to the part; `none` leaves the step out."""

    steps: tuple[Mapping[str, Part | None], ...]
    chains: tuple[Chain, ...]
    """All that fit, each once: those without training first, and the shorter ones before the longer."""
    written: Mapping[str, tuple[str, ...]]
    """From a chain in words to the alternative of each step that makes it."""

    def chain(self, written: Sequence[str]) -> Chain | None:
        """What one alternative of each step makes; None where they do not fit."""
        return _fitting([step[each] for step, each in zip(self.steps, written, strict=True)])


def read_space(text: str, task: str) -> Space:
    """Read `a(option=1; other=2) | none > b | c`: steps between `>`, alternatives between `|`.

    Raises ConfigError for a method or an option that is not known or is for another task, and where nothing fits.
    """
    steps = tuple(
        dict(_alternative(each.strip(), task) for each in step.split("|") if each.strip()) for step in text.split(">")
    )
    if not all(steps):
        raise ConfigError(f"space={text!r}: a step is empty; write none | method(option=value) > method | method")
    found: dict[str, Chain] = {}
    made_by: dict[str, tuple[str, ...]] = {}
    for written in product(*steps):
        chain = _fitting([step[each] for step, each in zip(steps, written, strict=True)])
        if chain:
            found.setdefault(said(chain), chain)
            made_by.setdefault(said(chain), written)
    if not found:
        raise ConfigError(
            f"space={text!r}: no chain fits: a method takes what the one before it gives, none stands there twice, and "
            "distill trains what was cut before it, or a student of its own"
        )
    chains = sorted(found.values(), key=lambda chain: (is_trained(chain), len(chain)))
    return Space(steps, tuple(chains), made_by)


def default_space(task: str, layers: int, epochs: float) -> str:
    """For a network of so many layers: whole blocks and feed-forward units cut, the rest trained by the uncut model,
    the vocabulary cut after (teacher and student share their tokens), then int8 or another runtime."""
    kept = sorted({max(1, round(layers * share)) for share in (2 / 3, 1 / 2, 1 / 3, 1 / 6)} - {layers}, reverse=True)
    blocks = [f"prune.layers(count={layers - each}; recovery=none)" for each in kept]
    steps = [
        [NONE, *blocks],
        [NONE, "prune.neurons(fraction=0.5; recovery=none)"],
        [f"{method}(epochs={epochs:g})" for method in ("distill.logits", "distill.hidden")],
        [NONE, "prune.vocabulary"],
        ["quantize.int8_static", "quantize.int8_dynamic", "export.openvino"],
    ]
    if task == "text-generation":
        steps[2:] = [
            [f"distill.logits(epochs={epochs:g})"],
            ["quantize.weight_only(bits=8)", "quantize.weight_only(bits=4)", "export.openvino"],
        ]
    return " > ".join(" | ".join(step) for step in steps)


def _alternative(text: str, task: str) -> tuple[str, Part | None]:
    if text == NONE:
        return NONE, None
    found = WRITTEN.fullmatch(text)
    if found is None:
        raise ConfigError(f"space: {text!r} cannot be read; write none or method(option=value; option=value)")
    options: dict[str, str] = {}
    for each in (found["options"] or "").split(";"):
        option, equals, value = each.partition("=")
        if each.strip() and not equals:
            raise ConfigError(f"space: {each.strip()!r} of {text!r} has no value; write option=value")
        if each.strip():
            options[option.strip()] = value.strip()
    method = table.build(found["name"], options)
    if task not in method.tasks:
        raise ConfigError(f"space: {found['name']} is for {' and '.join(method.tasks)}, not for task={task}")
    if not method.artifact:
        raise ConfigError(f"space: {found['name']} measures a runtime and makes no model; use export.fastest")
    return text, Part(found["name"], method, "student" in options)


def _fitting(parts: Sequence[Part | None]) -> Chain | None:
    """The parts as a chain, without a lesson where nothing was cut; None where they do not fit."""
    kind, cut = "torch", False
    chain: list[Part] = []
    for part in parts:
        if part is None or (part.teaches and not cut):
            continue
        if part.method.takes != kind or part.name in {before.name for before in chain}:
            return None
        if part.name.startswith("distill.") and not part.teaches and cut:
            return None
        if part.teaches and part.method.gives != kind:
            return None
        chain.append(part)
        kind, cut = part.method.gives, True
    return tuple(chain) or None
