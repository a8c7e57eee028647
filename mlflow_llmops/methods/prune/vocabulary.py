"""Cut the vocabulary: in a small encoder the table of embeddings is half of the file, and a task uses little of it."""

import json
import tempfile
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.engines.artifact import TOKENIZER
from mlflow_llmops.errors import DataError, ModelError
from mlflow_llmops.methods.method import Method
from mlflow_llmops.methods.prune._pieces import Trimmed, trim
from mlflow_llmops.models.text_model import TextModel

CONFIG = "tokenizer_config.json"
LISTS = ("suppress_tokens", "begin_suppress_tokens")
"""Numbers of tokens in a generation config under other names than `..._token_id`."""


@dataclass(frozen=True)
class Vocabulary(Method):
    """Tokens that no text of the train split uses leave the embeddings and the tokenizer (Abdaoui et al.,
    arXiv:2010.05609). Special tokens, single letters and pieces that alone spell a letter stay, so any text can still
    be read: those of the train split are cut into the same pieces, others into finer ones.

    An output layer over the vocabulary follows. How much is won depends on the texts, and answers to them stay alike.
    """

    tasks: ClassVar[tuple[str, ...]] = ("text-classification", "text-generation")
    cuts_vocabulary: ClassVar[bool] = True
    smaller: ClassVar[bool] = False  # a vocabulary that was learned from the same texts has nothing to lose

    def check(self, model: TextModel, data: Splits) -> None:
        super().check(model, data)
        if not len(data.train):
            raise DataError("prune.vocabulary keeps what the train split uses, and it is empty; give data with texts")

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        net = deepcopy(model.network)
        rows = _table(net).num_embeddings
        # numbers that the config names stay: a network looks for them
        also = [each for config in _configs(net) for number in _numbers(config) for each in _listed(number)]
        trimmed = trim(model.encoder, data.train.texts, [number for number in also if number < rows])
        if max(trimmed.kept) >= rows:
            raise ModelError(
                f"the tokenizer has a token numbered {max(trimmed.kept)} and the embeddings have {rows} rows; "
                "resize them to the tokenizer and train the new ones first"
            )
        keep_rows(net, trimmed.kept)
        return model.with_net(net.eval(), tokenizer=_rewritten(model.tokenizer, trimmed))


def keep_rows(net: PreTrainedModel, kept: tuple[int, ...]) -> None:
    """Cut the embeddings, and an output layer over the vocabulary, to these rows in place, and renumber the config."""
    rows = torch.tensor(kept)
    table: Any = _table(net)
    out: Any = net.get_output_embeddings()
    tied = out is not None and out.weight is table.weight
    renumbered = {old: new for new, old in enumerate(kept)}
    table.weight = nn.Parameter(table.weight.detach()[rows].contiguous())
    table.num_embeddings = len(kept)
    if table.padding_idx is not None:
        table.padding_idx = renumbered.get(table.padding_idx)
    if out is not None:
        out.weight = table.weight if tied else nn.Parameter(out.weight.detach()[rows].contiguous())
        out.out_features = len(kept)
        if getattr(out, "bias", None) is not None:
            out.bias = nn.Parameter(out.bias.detach()[rows].contiguous())
    net.config.vocab_size = len(kept)
    for config in _configs(net):
        for name in _numbered(config):
            old = getattr(config, name)
            new = [renumbered[each] for each in _listed(old) if each in renumbered]
            setattr(config, name, new if isinstance(old, list) else new[0] if new else None)


def _table(net: PreTrainedModel) -> nn.Embedding:
    table = net.get_input_embeddings()
    if not isinstance(table, nn.Embedding):
        raise ModelError(f"the embeddings of {type(net).__name__} are no plain table ({type(table).__name__}) to cut")
    return table


def _configs(net: PreTrainedModel) -> list[Any]:
    return [config for config in (net.config, getattr(net, "generation_config", None)) if config is not None]


def _numbered(config: Any) -> list[str]:
    """Its fields that hold numbers of tokens."""
    names = [name for name in vars(config) if name.endswith("_token_id") or name in LISTS]
    return [name for name in names if _listed(getattr(config, name))]


def _numbers(config: Any) -> list[Any]:
    return [getattr(config, name) for name in _numbered(config)]


def _listed(number: Any) -> list[int]:
    return list(number) if isinstance(number, list | tuple) else [number] if isinstance(number, int) else []


def _rewritten(tokenizer: PreTrainedTokenizerBase, trimmed: Trimmed) -> PreTrainedTokenizerBase:
    """The same class with the same settings around the trimmed pieces, read from its files as any user reads it."""
    renumbered = {old: new for new, old in enumerate(trimmed.kept)}
    with tempfile.TemporaryDirectory(prefix="llmops-tokenizer-") as folder:
        place = Path(folder)
        tokenizer.save_pretrained(place)
        for name in {*tokenizer.vocab_files_names.values()} - {TOKENIZER}:
            (place / name).unlink(missing_ok=True)  # the old words, where a class writes them beside
        trimmed.tokenizer.save(str(place / TOKENIZER))
        settings = json.loads((place / CONFIG).read_text(encoding="utf-8"))
        if "added_tokens_decoder" in settings:
            known = settings["added_tokens_decoder"].items()
            settings["added_tokens_decoder"] = {str(renumbered[int(old)]): token for old, token in known}
            (place / CONFIG).write_text(json.dumps(settings), encoding="utf-8")
        read = AutoTokenizer.from_pretrained(place)
    if read.backend_tokenizer.get_vocab() != trimmed.tokenizer.get_vocab():
        raise ModelError(f"{type(tokenizer).__name__} does not read fewer pieces from its own file; it cannot be cut")
    read.pad_token = tokenizer.pad_token
    return read
