"""Structured pruning of whole attention heads; those that share keys and values go together."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Lt
from transformers import PreTrainedModel

from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods._heads import attentions, keep_groups
from mlflow_llmops.methods._surgery import check_stock, family_of
from mlflow_llmops.methods._width import keep_channels
from mlflow_llmops.methods.export.onnx import Onnx
from mlflow_llmops.methods.export.openvino import OpenVino
from mlflow_llmops.methods.prune._groups import CHANNELS, OWN, Importance, channel_scores, group_scores, most
from mlflow_llmops.methods.prune._pruning import Pruning, Scores
from mlflow_llmops.models.text_model import TextModel

FIT = (
    "where the stock class ties heads to the hidden size (BERT, DistilBERT, GPT-2): width cuts as large a share of its "
    "channels, so that it fits again; export leaves them and gives a graph"
)


@dataclass(frozen=True)
class Heads(Pruning):
    """Cut the least important heads, as many in every block, then train to win quality back.

    Importance is how much the loss moves without a head (taylor; Michel, Levy and Neubig, arXiv:1905.10650), the norm
    of what it gives times that of the weights that read it (activation), or the norm of its weights (magnitude).
    """

    fraction: Annotated[float, "share of heads cut from each block, in (0, 1)", Gt(0), Lt(1)] = 0.25
    count: Annotated[int | None, "heads cut from each block, in place of fraction; auto: by fraction", Ge(1)] = None
    importance: Annotated[Importance, "what makes a head worth keeping"] = "taylor"
    fit: Annotated[Literal["width", "export"], FIT] = "width"
    engine: Annotated[Literal["openvino", "onnx"], "runtime of the graph where fit=export"] = "openvino"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count()

    @property
    def gives(self) -> str:  # type: ignore[override]
        return self.engine if self.fit == "export" else "torch"

    @property
    def scores_need_texts(self) -> bool:
        return self.importance in ("activation", "taylor")

    @property
    def scored_by(self) -> str:
        return f"{super().scored_by}-{self.fit}"

    def check_depth(self, model: TextModel) -> None:
        kept = self.kept(model.network, self.fraction)
        if self.fit == "export" and hidden_size(model.network, kept) == model.network.config.hidden_size:
            raise ConfigError(
                f"fit=export: the class of {model.network.config.model_type} holds {kept} groups of heads as it is; "
                "leave fit=width, which cuts no channels here, and export the result"
            )

    def depth_notes(self, model: TextModel) -> tuple[str, ...]:
        net = model.network
        kept, width = self.kept(net, self.fraction), net.config.hidden_size
        left = hidden_size(net, kept)
        of, kind = attentions(net)[0], net.config.model_type
        cut = f"{(of.groups - kept) * of.shared} of {of.heads} heads go from each block"
        if left == width:
            said = f"{cut}; the class of {kind} holds the rest as it is"
        elif self.fit == "export":
            said = f"{cut}; no class of {kind} holds the rest with {width} channels, so it leaves as {self.engine}"
        else:
            said = (
                f"{cut}, and {width - left} of {width} hidden channels with them, since the class of {kind} ties the "
                "hidden size to the heads; fit=export keeps the channels and gives a graph"
            )
        return (said,)

    def share(self, model: TextModel) -> float:
        return 1 - self.kept(model.network, self.fraction) / attentions(model.network)[0].groups

    def amounts(self, model: TextModel) -> tuple[float, ...]:
        groups = attentions(model.network)[0].groups
        return tuple(gone / groups for gone in range(1, groups))

    def with_fraction(self, fraction: float) -> Self:
        return replace(self, fraction=fraction, count=None)

    def scores(self, model: TextModel, texts: Texts, seed: int) -> Scores:
        found = group_scores(model, texts, self.importance, seed)
        if self.fit == "export":
            return found
        return {**found, **channel_scores(model, texts, self.importance, seed)}

    def cut(self, model: TextModel, scores: Scores, fraction: float, original: TextModel) -> TextModel:
        net = model.network
        kept = self.kept(original.network, fraction)
        blocks = range(len(attentions(net)))
        if kept < attentions(net)[0].groups:
            keep_groups(net, [most(scores[str(number)], kept) for number in blocks])
        if self.fit == "export":
            return replace(model, stock=False)
        left = hidden_size(original.network, kept)
        if left < net.config.hidden_size:
            channels = scores[CHANNELS]
            keep_channels(net, most(channels, left), most(scores.get(OWN, channels), left))
        check_stock(net)
        return model

    def finished(self, model: TextModel, data: Splits, folder: Path) -> TextModel:
        if self.fit != "export":
            return model
        return {"openvino": OpenVino, "onnx": Onnx}[self.engine]().apply(model, data, folder)

    def kept(self, net: PreTrainedModel, fraction: float) -> int:
        """Groups that stay in each block. Raises ConfigError where none would go, or none would stay."""
        of = attentions(net)[0]
        what = f"{of.heads} heads" if of.shared == 1 else f"{of.groups} groups of {of.shared} heads with common keys"
        if self.count is None:
            gone = round(of.groups * fraction)
            if gone == 0 and fraction >= self.fraction:
                raise ConfigError(
                    f"fraction={self.fraction:g}: nothing would be cut from {what} a block; give at least "
                    f"{1 / of.groups:.2g}"
                )
            return max(1, of.groups - gone)
        if self.count >= of.heads or self.count % of.shared:
            raise ConfigError(
                f"count={self.count}: a block has {what}; cut {of.shared} to {of.heads - of.shared}"
                + (f", a multiple of {of.shared}" if of.shared > 1 else "")
            )
        share = min(1.0, fraction / self.fraction)
        return of.groups - max(1, round(self.count * share / of.shared))


def hidden_size(net: PreTrainedModel, groups: int) -> int:
    """The largest hidden size that the class holds with so many groups of heads in each block."""
    of, config = attentions(net)[0], net.config
    heads: Any = groups * of.shared
    width: int = config.hidden_size
    if family_of(net).tied:
        return min(width, heads * of.size)
    return width - width % heads if config.model_type == "llama" else width
