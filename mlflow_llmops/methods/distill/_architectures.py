"""Efficient architectures that a fresh student can have, by name, with the sizes that their authors gave them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from transformers import CONFIG_MAPPING, AutoConfig

from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods._surgery import FAMILIES
from mlflow_llmops.models.tasks import task_named
from mlflow_llmops.models.text_model import TextModel

SIZES = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "neurons": "intermediate_size",
    "embedding": "embedding_size",
    "bottleneck": "intra_bottleneck_size",
}
"""What users call a size, and what transformers calls it."""


@dataclass(frozen=True)
class Architecture:
    """A model type of transformers and its sizes."""

    model_type: str
    sizes: Mapping[str, int]


ARCHITECTURES = {
    # Sanh et al., arXiv:1910.01108
    "distilbert": Architecture("distilbert", {"layers": 6, "width": 768, "heads": 12, "neurons": 3072}),
    # Jiao et al., arXiv:1909.10351
    "tinybert-4": Architecture("bert", {"layers": 4, "width": 312, "heads": 12, "neurons": 1200}),
    "tinybert-6": Architecture("bert", {"layers": 6, "width": 768, "heads": 12, "neurons": 3072}),
    # Lan et al., arXiv:1909.11942: all layers share their weights
    "albert": Architecture("albert", {"layers": 12, "width": 768, "heads": 12, "neurons": 3072, "embedding": 128}),
    # Sun et al., arXiv:2004.02984
    "mobilebert": Architecture(
        "mobilebert", {"layers": 24, "width": 512, "heads": 4, "neurons": 512, "embedding": 128, "bottleneck": 128}
    ),
}


def build_architecture(teacher: TextModel, student: str, seed: int) -> TextModel:
    """A network with random weights, the teacher's tokenizer, labels and longest text; `student` is `name` or
    `name:width=128,layers=2`.

    Raises ConfigError for sizes that do not fit, or for a teacher that writes texts, which these cannot do.
    """
    if teacher.task != "text-classification":
        raise ConfigError(f"student={student!r} is an encoder, which cannot write texts; give layers:N or shape:...")
    name, colon, rest = student.partition(":")
    architecture = ARCHITECTURES[name]
    given = read_sizes(rest, student, architecture.sizes) if colon else {}
    sizes = _filled_up(architecture.sizes, given)
    attention = sizes.get("bottleneck", sizes["width"])
    if attention % sizes["heads"]:
        raise ConfigError(f"student={student!r}: a width of {attention} is no multiple of heads={sizes['heads']}")
    theirs = teacher.network.config
    config = AutoConfig.for_model(
        architecture.model_type,
        vocab_size=theirs.vocab_size,
        max_position_embeddings=getattr(theirs, "max_position_embeddings", None) or teacher.max_length,
        pad_token_id=teacher.pad_id,
        bos_token_id=teacher.tokenizer.bos_token_id,
        eos_token_id=teacher.tokenizer.eos_token_id,
        id2label=dict(enumerate(teacher.labels)),
        label2id={label: i for i, label in enumerate(teacher.labels)},
        **{_name_in_config(architecture.model_type, size): value for size, value in sizes.items()},
    )
    torch.manual_seed(seed)
    net = task_named(teacher.task).auto().from_config(config)
    return teacher.with_net(net.eval(), fresh=True)


def read_sizes(text: str, student: str, known: Collection[str]) -> dict[str, int]:
    """`layers=2,width=128` as numbers. Raises ConfigError for another name, or a number below 1."""
    found = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in known or not value.isdecimal() or int(value) < 1:
            raise ConfigError(f"student={student!r}: {part!r} is not one of {', '.join(known)} with a number")
        found[key] = int(value)
    return found


def _filled_up(usual: Mapping[str, int], given: Mapping[str, int]) -> dict[str, int]:
    """Sizes that are not given keep their proportion to the width; an embedding is never wider than it."""
    width = given.get("width", usual["width"])
    sizes = {name: size if name == "layers" else max(1, size * width // usual["width"]) for name, size in usual.items()}
    if "embedding" in usual:
        sizes["embedding"] = min(usual["embedding"], width)
    sizes |= given
    if "heads" not in given:
        attention = sizes.get("bottleneck", sizes["width"])
        sizes["heads"] = next(heads for heads in range(sizes["heads"], 0, -1) if attention % heads == 0)
    return sizes


def _name_in_config(model_type: str, size: str) -> str:
    if size == "neurons" and model_type in FAMILIES:
        return FAMILIES[model_type].units
    return CONFIG_MAPPING[model_type].attribute_map.get(SIZES[size], SIZES[size])
