"""How a network that was cut wins quality back: its training, and low-rank adapters that are merged after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import nn
from transformers import PreTrainedModel

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.methods._layers import weighted_layers
from mlflow_llmops.methods._losses import Loss, label_loss, soft_target_loss
from mlflow_llmops.methods._rows import Row, rows_of
from mlflow_llmops.methods._teacher import teacher_answers
from mlflow_llmops.methods._train import Schedule, learning_rate, train
from mlflow_llmops.models.text_model import TextModel

WEIGHTS = (0.3, 0.7)
"""Of the labels, and of the unpruned model's answers."""
TAU = {"text-classification": 2.0, "text-generation": 1.0}
LORA_RATE = 10.0
"""Adapters are learned at a multiple of the rate that suits all weights (Schulman, LoRA Without Regret, 2025)."""


def recover(
    pruned: TextModel,
    teacher: TextModel,
    data: Splits,
    recovery: str,
    schedule: Schedule,
    rank: int,
    stage: str = names.RECOVER,
) -> None:
    """Train `pruned`'s network in place: on the labels (`full`, `lora`), or on those and the answers of `teacher`, the
    unpruned model (`distill`)."""
    distills = recovery == "distill"
    loss: Loss = soft_target_loss(*WEIGHTS, TAU[pruned.task]) if distills else label_loss

    def rows(split: str) -> list[Row]:
        texts = getattr(data, split)
        return rows_of(pruned, texts, teacher_answers(teacher, texts) if distills else None)

    dev = rows("dev") if schedule.patience else []
    if recovery != "lora":
        train(pruned, rows("train"), schedule, loss, dev, stage=stage)
        return
    rate = schedule.learning_rate or LORA_RATE * learning_rate(pruned)
    with adapted(pruned.network, rank, schedule.seed):
        train(pruned, rows("train"), replace(schedule, learning_rate=rate), loss, dev, stage=stage)


@contextmanager
def adapted(net: PreTrainedModel, rank: int, seed: int) -> Iterator[None]:
    """Low-rank adapters (Hu et al., arXiv:2106.09685) beside every linear layer while it lasts, which alone are
    trained; they are merged into the layers at its end."""
    import torch
    from peft import LoraConfig, LoraModel

    tables = {id(module.weight) for module in net.modules() if isinstance(module, nn.Embedding)}
    # an output layer that shares the embeddings' table cannot change alone
    layers = [name for name, layer in weighted_layers(net).items() if id(layer.weight) not in tables]
    learned = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    torch.manual_seed(seed)
    # with the full names as a pattern: peft takes the names in a list for endings
    pattern = "|".join(name.replace(".", r"\.") for name in layers)
    adapters = LoraModel(net, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=pattern), "recovery")
    try:
        yield
    finally:
        adapters.merge_and_unload()
        vars(net).pop("peft_config", None)
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name in learned)
