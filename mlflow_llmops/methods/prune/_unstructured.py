"""What methods share that make single weights zero and leave every tensor's shape: they sparsify, and save nothing by
themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from annotated_types import Gt, Lt
from transformers import PreTrainedModel

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ConfigError, ModelError
from mlflow_llmops.methods._inputs import inner_layers
from mlflow_llmops.methods._surgery import unit_weights
from mlflow_llmops.methods.prune._masks import Masks, Pattern, kept_zero, put_zeros
from mlflow_llmops.methods.prune._pruning import Pruning, Scores, _copy, with_random_weights
from mlflow_llmops.methods.prune._recovery import recover
from mlflow_llmops.models.text_model import TextModel

PATTERN = (
    "zeros:weights, as 2:4 for 2 zeros among each 4 weights of an output that stand next to each other, instead of "
    "fraction; auto: anywhere"
)


@dataclass(frozen=True)
class Unstructured(Pruning):
    """A method whose result is zeros in dense tensors. Zeros stay zeros while the others are trained."""

    sparsifies: ClassVar[bool] = True
    smaller: ClassVar[bool] = False

    fraction: Annotated[float, "share of the weights that become zero, in (0, 1)", Gt(0), Lt(1)] = 0.5
    pattern: Annotated[str | None, PATTERN] = None
    keep: Annotated[str | None, "layers left whole: names or patterns such as *.query, with commas; auto: none"] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recovery == "lora":
            raise ConfigError(
                "recovery='lora': adapters are dense, so merging them would fill the zeros; take distill, full or none"
            )
        if self.zeros is not None and (self.rounds > 1 or self.max_quality_drop is not None):
            raise ConfigError(
                f"pattern={self.pattern!r}: it says how many weights become zero, so there are no rounds to get there "
                "and no fraction to search for; leave rounds and max_quality_drop, or give fraction alone"
            )

    @property
    def zeros(self) -> Pattern | None:
        """The pattern, where there is one."""
        return None if self.pattern is None else Pattern.read(self.pattern)

    def check(self, model: TextModel, data: Splits) -> None:
        super().check(model, data)
        layers = inner_layers(model.network, self.keep)
        if not layers:
            raise ModelError(f"keep={self.keep!r} leaves no layer to make zeros in")
        for name, layer in layers.items():
            _check_size(name, unit_weights(layer, outputs=True).shape[1], self.zeros)
        self._share(layers, self.fraction)

    def masks(self, model: TextModel, layers: dict[str, Any], scores: Scores, fraction: float) -> Masks:
        """What is to be zero in each of `layers`, which are the model's; other weights may be changed in place."""
        raise NotImplementedError

    def cut(self, model: TextModel, scores: Scores, fraction: float, original: TextModel) -> TextModel:
        layers = inner_layers(model.network, self.keep)
        put_zeros(layers, self.masks(model, layers, scores, self._share(layers, fraction)))
        return model

    @contextmanager
    def held(self, net: PreTrainedModel) -> Iterator[None]:
        layers = inner_layers(net, self.keep)
        with kept_zero(layers, zeros_of(layers)):
            yield

    def from_scratch(self, model: TextModel, data: Splits, seed: int = 0) -> TextModel:
        """The weights that are left, drawn anew, with the zeros where they are: what a user would keep is the mask."""
        cut = self.cut(_copy(model), self._kept_scores(model, data, seed), self.fraction, model)
        made = replace(cut, net=with_random_weights(cut.network, seed), fresh=True)
        masks = zeros_of(inner_layers(cut.network, self.keep))
        with kept_zero(layers := inner_layers(made.network, self.keep), masks):
            put_zeros(layers, masks)
            recover(made, model, data, self.recovery, self.schedule(seed), self.lora_rank, names.FROM_SCRATCH)
        return replace(made, fresh=False)

    def _share(self, layers: dict[str, Any], fraction: float) -> float:
        """Raises ConfigError where it is less than a weight."""
        pattern = self.zeros
        if pattern is not None:
            return pattern.zeros / pattern.of
        fewest = min(unit_weights(layer, outputs=True).shape[1] for layer in layers.values())
        if round(fraction * fewest) == 0:
            raise ConfigError(f"fraction={fraction:g}: not one of the {fewest} inputs of a layer would become zero")
        return fraction


def zeros_of(layers: dict[str, Any]) -> Masks:
    """Where the layers hold zeros now."""
    return {name: unit_weights(layer, outputs=True).detach() == 0 for name, layer in layers.items()}


def _check_size(name: str, inputs: int, pattern: Pattern | None) -> None:
    if pattern is None or inputs % pattern.of == 0:
        return
    fitting = [size for size in (4, 8, 16, 2, 3, 5) if inputs % size == 0]
    hint = f"take {round(fitting[0] / 2)}:{fitting[0]}, or keep the layer" if fitting else "keep the layer"
    raise ModelError(f"pattern={pattern} does not divide the {inputs} inputs of {name}; {hint}")
