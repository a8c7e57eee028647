"""Build the student that the `student` option describes."""

import re
from copy import deepcopy
from math import gcd
from pathlib import Path

import torch
from transformers import PreTrainedModel

from mlflow_llmops.errors import ConfigError, LLMOpsError
from mlflow_llmops.methods import _session
from mlflow_llmops.methods._blocks import keep_blocks, transformer_blocks
from mlflow_llmops.methods._ranks import from_main
from mlflow_llmops.methods._surgery import FAMILIES
from mlflow_llmops.methods.distill._architectures import ARCHITECTURES, SIZES, build_architecture, read_sizes
from mlflow_llmops.models.load import load
from mlflow_llmops.models.text_model import TextModel

SHAPE = ("layers", "width", "heads", "neurons")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


def build_student(teacher: TextModel, student: str, seed: int) -> TextModel:
    """`layers:2` copies every k-th layer of the teacher, `half` half of them; `shape:...` is fresh, same family;
    `albert` and its like are fresh too; anything else is a trained model: a folder, a hub id, a reference of MLflow.

    Raises ConfigError for a description that cannot be read, a shape that does not fit, or a model that is not there.
    """
    if student == "half":
        student = f"layers:{max(1, teacher.network.config.num_hidden_layers // 2)}"
    kind, _, rest = student.partition(":")
    if kind == "layers" and rest.isdecimal():
        return teacher.with_net(keep_layers(teacher.network, int(rest)))
    if kind == "shape" and rest:
        return teacher.with_net(_fresh(teacher.network, rest, student, seed), fresh=True)
    if kind in ARCHITECTURES:
        return build_architecture(teacher, student, seed)
    if kind in ("models", "runs") and rest.startswith("/"):
        return _loaded(teacher, student, seed, from_main(lambda: str(_session.current().fetch(student))))
    if kind not in ("layers", "shape") and (HUB_ID.fullmatch(student) or Path(student).is_dir()):
        return _loaded(teacher, student, seed)
    raise ConfigError(
        f"student={student!r} cannot be read; write half, layers:2, shape:layers=2,width=128,heads=4, "
        f"{', '.join(ARCHITECTURES)}, a folder or a hub id"
    )


def keep_layers(net: PreTrainedModel, count: int) -> PreTrainedModel:
    """A copy with `count` of the transformer blocks, evenly spread, the first and the last among them."""
    copy = deepcopy(net)
    blocks = transformer_blocks(copy)
    if not 1 <= count < len(blocks):
        raise ConfigError(
            f"student=layers:{count}: the teacher has {len(blocks)} layers, so give 1 to {len(blocks) - 1}"
        )
    kept = [round(i * (len(blocks) - 1) / max(count - 1, 1)) for i in range(count)]
    keep_blocks(copy, kept)
    return copy.eval()


def _loaded(teacher: TextModel, student: str, seed: int, folder: str | None = None) -> TextModel:
    torch.manual_seed(seed)  # a new head is drawn
    try:
        loaded = load(folder or student, teacher.task, teacher.labels, named=student)
    except LLMOpsError as error:
        reason = str(error).removeprefix(f"model={student}")
        known = ", ".join(("half", "layers:2", *ARCHITECTURES))
        raise ConfigError(f"student={student!r}{reason}; or write one of: {known}") from error
    if loaded.kind != "torch":
        raise ConfigError(
            f"student={student!r} is a graph of kind {loaded.kind}, which cannot be trained; give a torch model"
        )
    return loaded


def _fresh(net: PreTrainedModel, description: str, student: str, seed: int) -> PreTrainedModel:
    config = deepcopy(net.config)
    family = FAMILIES.get(config.model_type)
    units = family.units if family else SIZES["neurons"]
    given = read_sizes(description, student, SHAPE)
    for key, value in given.items():
        setattr(config, units if key == "neurons" else SIZES[key], value)
    if config.hidden_size % config.num_attention_heads:
        raise ConfigError(
            f"student={student!r}: width={config.hidden_size} is not a multiple of heads={config.num_attention_heads}"
        )
    if "neurons" not in given and "width" in given:
        setattr(config, units, 4 * config.hidden_size)
    # sizes that decoders keep beside those of the shape
    if getattr(config, "num_key_value_heads", None):
        config.num_key_value_heads = gcd(config.num_key_value_heads, config.num_attention_heads)
    if getattr(config, "head_dim", None):
        config.head_dim = config.hidden_size // config.num_attention_heads
    if getattr(config, "layer_types", None):
        kinds = config.layer_types
        config.layer_types = [kinds[i % len(kinds)] for i in range(config.num_hidden_layers)]
    torch.manual_seed(seed)
    return type(net)(config).eval()
