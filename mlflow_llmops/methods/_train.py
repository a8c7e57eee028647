"""Train a network with transformers' `Trainer`: what every method that trains shares."""

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_pt_utils import LengthGroupedSampler

from mlflow_llmops import names
from mlflow_llmops.errors import LLMOpsError
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.methods import _session
from mlflow_llmops.methods._launch import processes
from mlflow_llmops.methods._losses import Loss, label_loss, total
from mlflow_llmops.methods._ranks import from_main, share_of, wait_for_all
from mlflow_llmops.methods._rows import Batch, Row, collate, hide_tokens
from mlflow_llmops.models.text_model import TextModel

ALONG = "_trained_along"
"""The network's attribute that holds what is trained with it and thrown away after (a projection)."""


Prepare = Callable[[Batch], Batch]
"""From a batch as it was drawn to the one that is trained on."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train. `None` leaves the learning rate to `learning_rate`'s rule, and never stops
    early."""

    epochs: float
    learning_rate: float | None
    batch_size: int
    token_dropout: float
    seed: int
    accumulation: int = 1
    patience: int | None = None
    freeze_embeddings: bool = False
    precision: str = "auto"


def train(
    model: TextModel,
    rows: Sequence[Row],
    schedule: Schedule,
    loss: Loss = label_loss,
    dev: Sequence[Row] = (),
    wants: tuple[str, ...] = (),
    along: nn.Module | None = None,
    stage: str = names.TRAIN,
    prepare: Prepare | None = None,
) -> PreTrainedModel:
    """Train `model`'s network in place on `rows` and return it in eval mode.

    `dev` is what `patience` watches. `wants` names outputs that the loss needs beside logits (`hidden_states`,
    `attentions`). `along` is trained with the network. `stage` names this training among those of one method: in a
    session with a folder its checkpoints lie under that name, and it goes on from the last whole one. `prepare` makes
    the batch that is trained on from the one that was drawn; without it a share of the tokens is hidden.

    Raises LLMOpsError where the loss stops being a number.
    """
    net = model.network
    if schedule.epochs == 0 or not rows:
        return net.eval()
    session = _session.current()
    settings = {**asdict(schedule), "learning_rate": schedule.learning_rate or learning_rate(model), "texts": len(rows)}
    session.note({f"{stage}.{name}": value for name, value in settings.items()})
    with ExitStack() as stack:
        stack.enter_context(_prepared(net, schedule.freeze_embeddings, along))
        if session.work is None:
            own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmops-train-")))
            folder = from_main(lambda: own)
        else:
            folder = session.work / stage
        trainer = _LossTrainer(
            model=net,
            args=_arguments(model, len(rows), schedule, folder, along is not None),
            train_dataset=_dataset(rows),
            eval_dataset=_dataset(dev),
            data_collator=lambda items: collate([item["row"] for item in items], model),
            callbacks=[_StopAtNaN(), _Record(stage), _Save(session)],
        )
        # ours is a batch's mean, whatever the network's class could do: the Trainer divides it by the accumulation
        trainer.model_accepts_loss_kwargs = False
        trainer.loss, trainer.wants, trainer.terms = loss, wants, {}
        trainer.prepare = prepare or (lambda batch: hide_tokens(batch, model, schedule.token_dropout))
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(_Bar())
        if schedule.patience is not None:
            trainer.add_callback(EarlyStoppingCallback(schedule.patience))
        last = from_main(lambda: _last_whole_checkpoint(folder))
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        if not all(torch.isfinite(parameter).all() for parameter in net.parameters()):
            raise LLMOpsError(_diverged("weights", trainer.state.global_step, settings["learning_rate"]))
        wait_for_all()  # the best checkpoint is read by each
        shutil.rmtree(folder, ignore_errors=True)
    return net.eval()


WARM_UP = 0.1
"""The share of all steps in which the learning rate rises."""


def learning_rate(model: TextModel) -> float:
    """5e-5 for a trained network 768 wide, more for narrower and for untrained ones.

    The optimum falls with the width (Yang et al., arXiv:2203.03466); its square fits what was seen here at 128 and 192.
    """
    width = model.network.config.hidden_size
    return min(5e-5 * (768 / width) ** 2, 2e-3) * (1.5 if model.fresh else 1)


def _arguments(model: TextModel, count: int, schedule: Schedule, folder: Path, along: bool) -> TrainingArguments:
    watched = schedule.patience is not None
    steps = math.ceil(math.ceil(count / schedule.batch_size) / schedule.accumulation)  # of an epoch
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=schedule.epochs,
        learning_rate=schedule.learning_rate or learning_rate(model),
        per_device_train_batch_size=share_of(schedule.batch_size),
        per_device_eval_batch_size=4 * schedule.batch_size,
        gradient_accumulation_steps=schedule.accumulation,
        bf16=schedule.precision == "bf16" or (schedule.precision == "auto" and _has_bf16()),
        warmup_steps=math.ceil(WARM_UP * math.ceil(steps * schedule.epochs)),
        lr_scheduler_type="linear",
        weight_decay=0.01,
        max_grad_norm=1.0,
        remove_unused_columns=False,
        label_names=["input_ids"],  # so that evaluation asks for the loss, which is ours
        prediction_loss_only=True,
        eval_strategy="epoch" if watched else "no",
        save_strategy="epoch" if watched else "no",  # and by time, see _Save
        save_total_limit=2,
        load_best_model_at_end=watched,
        metric_for_best_model="eval_loss" if watched else None,
        greater_is_better=False if watched else None,
        logging_steps=max(1, math.ceil(steps / 8)),
        logging_nan_inf_filter=False,
        optim="adamw_torch_fused",
        report_to="none",
        disable_tqdm=False,
        seed=schedule.seed,
        data_seed=schedule.seed,
        dataloader_pin_memory=False,
        use_cpu=processes() > 1 and not torch.cuda.is_available(),  # or each process would train on its own
        # what is trained along takes no part in the network's outputs, where unused parameters are looked for
        ddp_find_unused_parameters=not along,
    )


def _dataset(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """`input_ids` stand where the Trainer looks for lengths."""
    return [{"input_ids": row.input_ids, "row": row} for row in rows]


def _has_bf16() -> bool:
    """Where the hardware computes in bf16; elsewhere it is emulated, and slower than fp32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return "amx_bf16" in hardware_tags().get(names.HARDWARE_PREFIX + "instruction_sets", "")


@contextmanager
def _prepared(net: PreTrainedModel, freeze_embeddings: bool, along: nn.Module | None) -> Iterator[None]:
    """With frozen embeddings and something trained along, as asked for, while training lasts."""
    tables = [module.weight for module in net.modules() if isinstance(module, nn.Embedding)]
    frozen = [weight for weight in tables if freeze_embeddings and weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(False)
    if along is not None:
        net.add_module(ALONG, along)
    try:
        yield
    finally:
        if along is not None:
            delattr(net, ALONG)
        for weight in frozen:
            weight.requires_grad_(True)


def _last_whole_checkpoint(folder: Path) -> Path | None:
    """A kill may leave one half written; its state is written last."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    return next((path for path in found if _is_whole(path)), None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    except (OSError, ValueError):
        return False
    return True


class _Order(LengthGroupedSampler):
    """An order of its own for every epoch, that depends on the seed and the epoch alone: a training that goes on in
    the midst of an epoch skips the texts that it saw, and no others."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        return super().__iter__()


class _LossTrainer(Trainer):
    """A Trainer with a loss of ours over the network's outputs."""

    loss: Loss
    wants: tuple[str, ...]
    terms: dict[str, list[torch.Tensor]]
    prepare: Prepare

    def _get_train_sampler(self, train_dataset=None):
        given: Any = self.train_dataset
        lengths = [len(item["input_ids"]) for item in given]
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return _Order(step, lengths, self.args.seed)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        asked = {f"output_{name}": True for name in self.wants}
        if model.training:
            # here and not while collating, which runs a batch ahead of the random state that a checkpoint keeps
            inputs = self.prepare(inputs)
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], **asked)
        terms = self.loss(outputs, inputs)
        if model.training:
            for name, (_, value) in terms.items():
                self.terms.setdefault(name, []).append(value.detach())
        loss = total(terms)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs, start_time=None):
        if "loss" in logs:  # each term's mean since the last record, beside their weighted sum
            means = {name + names.TERM_LOSS: self._mean(values) for name, values in self.terms.items()}
            logs |= means if len(means) > 1 else {}
            self.terms.clear()
        super().log(logs, start_time)

    def _mean(self, values: list[torch.Tensor]) -> float:
        """Over all processes."""
        mean: torch.Tensor = self.accelerator.reduce(torch.stack(values).mean(), reduction="mean")
        return mean.item()


class _Bar(ProgressCallback):
    """Its progress bar, without a line of JSON in the terminal for every record: the run has those."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        pass


class _Record(TrainerCallback):
    """Hand every record on to the run."""

    kept = {
        "learning_rate": names.LEARNING_RATE,
        "eval_loss": names.DEV_LOSS,
        "grad_norm": names.GRAD_NORM,
        "loss": names.LOSS,
    }

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_log(self, args, state, control, logs=None, **kwargs):
        found = {self.kept.get(name, name): value for name, value in (logs or {}).items()}
        wanted = {name: float(found[name]) for name in found if name.endswith("loss") or name in self.kept}
        wanted.pop("train_loss", None)
        if wanted:
            _session.current().record({f"{self.stage}/{name}": v for name, v in wanted.items()}, state.global_step)


class _Save(TrainerCallback):
    """A checkpoint whenever so much time has passed that its loss would be felt."""

    def __init__(self, session: _session.Session) -> None:
        self.seconds = session.checkpoint_seconds if session.work is not None else math.inf
        self.last = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        # all processes save together, or they would wait for each other for ever
        if self.seconds < math.inf and from_main(lambda: time.monotonic() - self.last >= self.seconds):
            control.should_save = True
        return control

    def on_save(self, args, state, control, **kwargs):
        self.last = time.monotonic()


class _StopAtNaN(TrainerCallback):
    """A loss that is no number never becomes one again: stop at once and say where."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise LLMOpsError(_diverged(f"loss {loss}", state.global_step, args.learning_rate))


def _diverged(what: str, step: int, rate: float) -> str:
    return f"training diverged: its {what} at step {step} cannot be computed with; try learning_rate={rate / 10:.2g}"
