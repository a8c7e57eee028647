"""What the quantizing methods share: layers that stay as they are, and a bound on what quality may be lost."""

from dataclasses import dataclass, replace
from typing import Annotated, Self

from annotated_types import Gt, Lt
from transformers import PreTrainedModel

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.methods._bound import check_measurable
from mlflow_llmops.methods._fake_quantize import INT8, Rounding
from mlflow_llmops.methods._layers import named
from mlflow_llmops.methods.method import Method
from mlflow_llmops.models.text_model import TextModel

KEEP = "layers left at full precision: names or patterns such as *.output.dense, with commas; auto: none"
DROP = (
    "accuracy on dev (nats a token for causal models) that may be lost: the worst layers go back to full precision "
    "until it holds; auto: no bound"
)


@dataclass(frozen=True)
class Quantization(Method):
    """A method whose result may leave some layers at full precision."""

    keep: Annotated[str | None, KEEP] = None
    max_quality_drop: Annotated[float | None, DROP, Gt(0), Lt(1)] = None
    control_seconds: Annotated[float, "seconds that the search for those layers may take", Gt(0)] = 600.0

    @property
    def rounding(self) -> Rounding:
        """What decides how sensitive a layer is to this method."""
        return INT8

    def check(self, model: TextModel, data: Splits) -> None:
        super().check(model, data)
        named(model.network, self.keep)
        check_measurable(self.max_quality_drop, model, data)

    def keeping(self, layers: tuple[str, ...]) -> Self:
        """The same method with `layers` left at full precision besides those that are anyway."""
        return replace(self, keep=",".join(filter(None, (self.keep, *layers))) or None)

    def kept(self, net: PreTrainedModel) -> tuple[str, ...]:
        """The names of the layers that stay as they are."""
        return named(net, self.keep)
