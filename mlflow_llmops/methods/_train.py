"""Train a network with transformers' `Trainer`: what every method that trains shares."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from mlflow_llmops.batching.scorer import TextScorer
from mlflow_llmops.data.texts import Texts
from mlflow_llmops.errors import LLMOpsError
from mlflow_llmops.models.text_model import TextModel

Loss = Callable[[torch.Tensor, dict[str, torch.Tensor]], torch.Tensor]
"""From logits and the batch to a scalar, the mean over the batch's texts (or tokens, for text generation)."""

IGNORED = -100
"""The label of a token that no loss counts."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train. `None` leaves the learning rate to `learning_rate`'s rule."""

    epochs: float
    learning_rate: float | None
    batch_size: int
    token_dropout: float
    seed: int


def train(
    model: TextModel,
    texts: Texts,
    schedule: Schedule,
    loss: Loss | None = None,
    extra: dict[str, np.ndarray] | None = None,
    log: list[dict[str, float]] | None = None,
) -> PreTrainedModel:
    """Train `model`'s network in place on `texts` and return it in eval mode.

    `loss` defaults to cross entropy with the labels. `extra` adds arrays with one row a text to each batch under
    their names. `log` receives the Trainer's records (step, loss, learning rate).

    Raises LLMOpsError where the loss stops being a number.
    """
    net = model.network
    if schedule.epochs == 0 or not len(texts):
        return net.eval()
    rows = _rows(model, texts, extra or {})
    random = torch.Generator().manual_seed(schedule.seed)

    def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return _collate(batch, model, schedule.token_dropout, random)

    with tempfile.TemporaryDirectory(prefix="llmops-train-") as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=schedule.epochs,
            learning_rate=schedule.learning_rate or learning_rate(model),
            per_device_train_batch_size=schedule.batch_size,
            warmup_steps=0.1,  # a share of all steps
            lr_scheduler_type="linear",
            weight_decay=0.01,
            max_grad_norm=1.0,
            train_sampling_strategy="group_by_length",
            remove_unused_columns=False,
            save_strategy="no",
            logging_steps=max(1, math.ceil(len(rows) / schedule.batch_size / 4)),
            optim="adamw_torch_fused",
            report_to="none",
            seed=schedule.seed,
            data_seed=schedule.seed,
            dataloader_pin_memory=False,
        )
        trainer = _LossTrainer(
            model=net,
            args=arguments,
            train_dataset=rows,
            data_collator=collate,
            callbacks=[_StopAtNaN()],
        )
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(_Bar())
        trainer.loss = loss or label_loss(model.task)
        trainer.train()
    if log is not None:
        log.extend(entry for entry in trainer.state.log_history if "loss" in entry)
    return net.eval()


def learning_rate(model: TextModel) -> float:
    """5e-5 for a trained network 768 wide, more for narrower and for untrained ones.

    The optimum falls with the width (Yang et al., arXiv:2203.03466); its square fits what was seen here at 128 and 192.
    """
    width = model.network.config.hidden_size
    return min(5e-5 * (768 / width) ** 2, 2e-3) * (1.5 if model.fresh else 1)


def label_loss(task: str) -> Loss:
    """Cross entropy with the labels, or with the next token."""

    def loss(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return cross_entropy(logits, batch["labels"])

    def next_token_loss(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        flat = logits[:, :-1].flatten(0, 1)
        return cross_entropy(flat, batch["labels"][:, 1:].flatten(), ignore_index=IGNORED)

    return loss if task == "text-classification" else next_token_loss


def _rows(model: TextModel, texts: Texts, extra: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    ids = TextScorer(model.encoder, model.run, model.max_length, model.pad_id, 1).encode(texts.texts)
    number_of = {label: i for i, label in enumerate(model.labels)}
    rows: list[dict[str, Any]] = []
    for i, item in enumerate(ids):
        row: dict[str, Any] = {"input_ids": item, "extra": {name: array[i] for name, array in extra.items()}}
        if texts.labels:
            row["label"] = number_of[texts.labels[i]]
        rows.append(row)
    return rows


def _collate(
    batch: list[dict[str, Any]], model: TextModel, token_dropout: float, random: torch.Generator
) -> dict[str, torch.Tensor]:
    width = max(len(row["input_ids"]) for row in batch)
    input_ids = torch.full((len(batch), width), model.pad_id, dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for i, row in enumerate(batch):
        input_ids[i, : len(row["input_ids"])] = torch.from_numpy(row["input_ids"])
        mask[i, : len(row["input_ids"])] = 1
    if model.task == "text-classification":
        labels = torch.tensor([row["label"] for row in batch]) if "label" in batch[0] else None
    else:
        labels = input_ids.masked_fill(mask == 0, IGNORED)
    if token_dropout:
        # Word dropout (Iyyer et al., 2015): the network must not lean on any single token.
        special = torch.isin(input_ids, torch.tensor(model.tokenizer.all_special_ids))
        hide = (torch.rand(input_ids.shape, generator=random) < token_dropout) & ~special
        hidden_by = model.tokenizer.mask_token_id
        input_ids = input_ids.masked_fill(hide, model.tokenizer.unk_token_id if hidden_by is None else hidden_by)
    collated = {"input_ids": input_ids, "attention_mask": mask}
    if labels is not None:
        collated["labels"] = labels
    for name in batch[0]["extra"]:
        collated[name] = torch.from_numpy(np.stack([row["extra"][name] for row in batch]))
    return collated


class _LossTrainer(Trainer):
    """A Trainer with a loss of ours over the network's logits."""

    loss: Loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        loss = self.loss(outputs.logits, inputs)
        return (loss, outputs) if return_outputs else loss


class _Bar(ProgressCallback):
    """Its progress bar, without a line of JSON in the terminal for every record: the run has those."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        pass


class _StopAtNaN(TrainerCallback):
    """A loss that is no number never becomes one again: stop at once and say where."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise LLMOpsError(
                f"the training loss is {loss} at step {state.global_step} (learning_rate "
                f"{logs.get('learning_rate', args.learning_rate):.2g}); try a tenth of the learning_rate"
            )
