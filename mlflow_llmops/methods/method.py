"""What a method is: a frozen dataclass whose fields are its options, and one verb, `apply`."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ModelError
from mlflow_llmops.methods.option import Option, checked, described
from mlflow_llmops.models.text_model import TextModel


@dataclass(frozen=True)
class Method:
    """The base of all methods.

    A field is written `name: Annotated[float, "what it is", Gt(0), Lt(1)] = 0.5`: the text documents it everywhere,
    the bounds (of `annotated_types`) are checked when the method is built, from Python or from strings alike.

    Raises ConfigError, naming the option, for a value that does not fit.
    """

    takes: ClassVar[str] = "torch"
    gives: ClassVar[str] = "torch"
    tasks: ClassVar[tuple[str, ...]] = ("text-classification",)
    compresses: ClassVar[bool] = True
    """It is meant to make the model smaller or faster, and the verdict asks whether it did."""
    artifact: ClassVar[bool] = True
    """What it makes can be logged: a runtime that is measured cannot."""
    new_head: ClassVar[bool] = False
    """A classifier gets a fresh head where its labels are not those of the data."""
    smaller: ClassVar[bool] = True
    """The result takes less disk than the model it was made from: a promise that the contract tests hold it to."""
    sparsifies: ClassVar[bool] = False
    """Its result is zeros in dense tensors: the share of them is measured, and said to gain nothing by itself."""
    cuts_vocabulary: ClassVar[bool] = False
    """Its result cuts some texts into other pieces than before: the share of them is measured."""
    for_long_inputs: ClassVar[bool] = False
    """It pays from some length on: it has `rivals`, and speed is measured by length."""
    wants: ClassVar[tuple[str, ...]] = ()
    """Instruction sets (`hardware.INSTRUCTION_SETS`) of which a CPU needs any one for the result to be fast."""

    def __post_init__(self) -> None:
        for field in fields(self):
            annotation = _hints(type(self))[field.name]
            object.__setattr__(self, field.name, checked(field.name, annotation, getattr(self, field.name)))

    @classmethod
    def options(cls) -> tuple[Option, ...]:
        """The fields, in the order they are written, its own before those that it shares with others."""
        written = [name for base in cls.__mro__ for name in vars(base).get("__annotations__", {})]
        ordered = sorted(fields(cls), key=lambda field: written.index(field.name))
        return tuple(Option(field.name, described(_hints(cls)[field.name]), field.default) for field in ordered)

    def check(self, model: TextModel, data: Splits) -> None:
        """Raises ModelError where this method cannot work on `model` with `data`."""
        if model.task not in self.tasks:
            raise ModelError(f"this method is for {' and '.join(self.tasks)}, not for task={model.task}")
        if model.kind != self.takes:
            raise ModelError(
                f"this method takes a {self.takes} model and this one is already {model.kind}; "
                "start from the version it was exported from"
            )
        if model.net is not None:
            _check_weights(model.net)
        unknown = sorted(set(data.labels) - set(model.labels))
        if unknown and model.labels:
            raise ModelError(
                f"the model does not know the label {unknown[0]!r} ({len(unknown)} of {len(data.labels)} are new); "
                "finetune it on this data first"
            )

    def notes(self, model: TextModel) -> tuple[str, ...]:
        """What a user should know before the work, one line each."""
        return ()

    def rivals(self, model: TextModel, folder: Path, longest: int) -> dict[str, TextModel]:
        """Without and with the method, in the runtime of its result and made to take `longest` tokens, whatever they
        answer then: what speed is measured by length on."""
        raise NotImplementedError

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        """Make a new model from `model`, which stays as it is. `folder` is empty and belongs to the result."""
        raise NotImplementedError


def _check_weights(net: PreTrainedModel) -> None:
    """Raises ModelError where weights are not what `save_pretrained` would keep."""
    masked = [
        name
        for name, module in net.named_modules()
        if parametrize.is_parametrized(module) or any(key.endswith("_orig") for key in module._parameters)
    ]
    if masked:
        raise ModelError(
            f"{masked[0]} and {len(masked) - 1} more layers have live masks or other parametrizations, which a saved "
            "model would lose: make them permanent first (torch.nn.utils.prune.remove, remove_parametrizations)"
        )
    if getattr(net.config, "quantization_config", None) is not None:
        raise ModelError("this model is already quantized; start from the version it was made from")


def _hints(cls: type[Method]) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)
