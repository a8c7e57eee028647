"""Structured pruning of the hidden size: channels of embeddings, attention, feed-forward layers and norms alike."""

from dataclasses import dataclass
from math import lcm
from typing import Annotated

from annotated_types import Gt, Lt
from transformers import PreTrainedModel

from mlflow_llmops.data.texts import Texts
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods._heads import attentions, keep_groups
from mlflow_llmops.methods._surgery import check_stock, family_of
from mlflow_llmops.methods._width import keep_channels
from mlflow_llmops.methods.prune._groups import CHANNELS, OWN, Importance, channel_scores, group_scores, most
from mlflow_llmops.methods.prune._pruning import Pruning, Scores
from mlflow_llmops.models.text_model import TextModel

MULTIPLE = 8
"""Channels stay a multiple of this, the width of a vector register in floats."""


@dataclass(frozen=True)
class Width(Pruning):
    """Cut the least important channels of the hidden size everywhere, then train to win quality back (Minitron;
    Muralidharan et al., arXiv:2407.14679).

    Where the class ties the hidden size to the heads (BERT, DistilBERT, GPT-2), as large a share of heads goes along.
    Importance is the size of what the norms give (activation), how much the loss moves (taylor), or that of the weights
    (magnitude).
    """

    fraction: Annotated[float, "share of the hidden size's channels that is cut, in (0, 1)", Gt(0), Lt(1)] = 0.25
    importance: Annotated[Importance, "what makes a channel worth keeping"] = "activation"

    @property
    def scores_need_texts(self) -> bool:
        return self.importance in ("activation", "taylor")

    def check_depth(self, model: TextModel) -> None:
        self._kept(model.network, self.fraction)

    def depth_notes(self, model: TextModel) -> tuple[str, ...]:
        net = model.network
        if not family_of(net).tied:
            return ()
        of, left = attentions(net)[0], self._kept(net, self.fraction)
        said = (
            f"{net.config.hidden_size - left} of {net.config.hidden_size} hidden channels go, and "
            f"{of.heads - left // of.size} of {of.heads} heads with them, since the class of {net.config.model_type} "
            "ties one to the other"
        )
        return (said,)

    def amounts(self, model: TextModel) -> tuple[float, ...]:
        width, step = model.network.config.hidden_size, _step(model.network)
        return tuple(1 - keep / width for keep in range((width - 1) // step * step, 0, -step))

    def scores(self, model: TextModel, texts: Texts, seed: int) -> Scores:
        found = channel_scores(model, texts, self.importance, seed)
        if not family_of(model.network).tied:
            return found
        return {**found, **group_scores(model, texts, self.importance, seed)}

    def cut(self, model: TextModel, scores: Scores, fraction: float, original: TextModel) -> TextModel:
        net = model.network
        left = self._kept(original.network, fraction)
        if left < net.config.hidden_size:
            if family_of(net).tied:
                found = attentions(net)
                keep_groups(net, [most(scores[str(i)], left // found[0].size) for i in range(len(found))])
            keep_channels(net, most(scores[CHANNELS], left), most(scores.get(OWN, scores[CHANNELS]), left))
            check_stock(net)
        return model

    def _kept(self, net: PreTrainedModel, fraction: float) -> int:
        width, step = net.config.hidden_size, _step(net)
        keep = max(step, round(width * (1 - fraction) / step) * step)
        if keep >= width and fraction >= self.fraction:
            raise ConfigError(
                f"fraction={self.fraction:g}: nothing would be cut from {width} channels (they go in {step}s)"
            )
        return int(min(keep, width))


def _step(net: PreTrainedModel) -> int:
    """What the class wants the hidden size to be a multiple of."""
    of = attentions(net)[0]
    if family_of(net).tied:
        return of.size
    return lcm(MULTIPLE, of.heads) if net.config.model_type == "llama" else MULTIPLE
