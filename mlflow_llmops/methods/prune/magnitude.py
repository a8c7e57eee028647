"""Zeros where weights are small."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from mlflow_llmops.data.texts import Texts
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods._surgery import unit_weights
from mlflow_llmops.methods.prune._masks import Masks, in_layer, in_network, in_rows
from mlflow_llmops.methods.prune._pruning import Scores
from mlflow_llmops.methods.prune._unstructured import Unstructured
from mlflow_llmops.models.text_model import TextModel


@dataclass(frozen=True)
class Magnitude(Unstructured):
    """The smallest weights become zero, as many in each layer or over all layers (Han et al., arXiv:1506.02626).

    Dense hardware gains neither size nor speed from zeros, which the run says.
    """

    scope: Annotated[Literal["layer", "global"], "the same share of each layer, or of all layers together"] = "layer"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope == "global" and self.pattern is not None:
            raise ConfigError(f"scope='global': pattern={self.pattern} has as many zeros everywhere; take scope=layer")

    @property
    def scores_need_texts(self) -> bool:
        return False

    def scores(self, model: TextModel, texts: Texts, seed: int) -> Scores:
        """None: the weights say it themselves."""
        return {}

    def masks(self, model: TextModel, layers: dict[str, Any], scores: Scores, fraction: float) -> Masks:
        sizes = {name: unit_weights(layer, outputs=True).detach().abs() for name, layer in layers.items()}
        if self.scope == "global":
            return in_network(sizes, fraction)
        if self.zeros is not None:
            return {name: in_rows(size, fraction, self.zeros) for name, size in sizes.items()}
        return {name: in_layer(size, fraction) for name, size in sizes.items()}
