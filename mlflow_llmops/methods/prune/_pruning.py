"""What every pruning method has: how much is cut and in how many steps, and how quality is won back.

A method gives `scores` and `cut`; the rest is here.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import torch
from annotated_types import Ge, Gt, Lt
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.errors import ConfigError, DataError
from mlflow_llmops.methods import _session
from mlflow_llmops.methods._bound import check_measurable
from mlflow_llmops.methods._calibration import calibration_texts
from mlflow_llmops.methods._ranks import from_main
from mlflow_llmops.methods._teacher import answers_key
from mlflow_llmops.methods.prune._recovery import recover
from mlflow_llmops.methods.training import Training
from mlflow_llmops.models.tasks import task_named
from mlflow_llmops.models.text_model import TextModel

Scores = dict[str, torch.Tensor]
"""What a cut is decided by, under names that the method chooses: how much each unit or weight is worth, say."""

FILE = "importance.safetensors"
ADVISED = 1 / 3
"""A larger share is better cut in several rounds."""
GRID = tuple(step / 50 for step in range(1, 50))

RECOVERY = (
    "training after the cut: distill, from the labels and the unpruned model; full, on the labels; lora, on the "
    "labels with low-rank adapters, merged after; none"
)
ROUNDS = "cuts, each followed by its part of the training: 1 is one shot, more are advised above a third"
CONTROL = "from_scratch: what was left by the cut is trained from random weights with the same budget, and reported"
DROP = (
    "accuracy on dev (nats a token for causal models) that may be lost: the deepest cut that holds it is searched for, "
    "from fraction on; auto: no bound"
)


@dataclass(frozen=True)
class Pruning(Training):
    """A method that cuts a share of something, and may train before, between and after."""

    tasks: ClassVar[tuple[str, ...]] = ("text-classification", "text-generation")

    fraction: Annotated[float, "share that is cut, in (0, 1)", Gt(0), Lt(1)] = 0.5
    recovery: Annotated[Literal["distill", "full", "lora", "none"], RECOVERY] = "distill"
    rounds: Annotated[int, ROUNDS, Ge(1)] = 1
    lora_rank: Annotated[int, "rank of the adapters of recovery=lora", Ge(1)] = 8
    control: Annotated[Literal["none", "from_scratch"], CONTROL] = "none"
    max_quality_drop: Annotated[float | None, DROP, Gt(0), Lt(1)] = None
    control_seconds: Annotated[float, "seconds that the search for the cut may take", Gt(0)] = 600.0
    epochs: Annotated[float, "passes over the train split while recovering, over all rounds", Ge(0)] = 1.0
    token_dropout: Annotated[float, "share of tokens hidden while recovering", Ge(0), Lt(1)] = 0.1
    calibration_texts: Annotated[int, "texts of the train split that importance is measured on", Ge(1)] = 256

    # what a method says

    def scores(self, model: TextModel, texts: Texts, seed: int) -> Scores:
        """What `cut` decides by, measured on `texts`, of the train split. Nothing about `fraction` goes in, so that
        another fraction can have the same."""
        raise NotImplementedError

    def cut(self, model: TextModel, scores: Scores, fraction: float, original: TextModel) -> TextModel:
        """Without `fraction` of what `original` had. `model` is a copy to work on in place: `original` itself, or, in
        a later round, what is left of it. `scores` are `model`'s.

        Raises ConfigError where that would cut nothing.
        """
        raise NotImplementedError

    @property
    def scored_by(self) -> str:
        """All options that the scores depend on, besides `calibration_texts`: a part of the key that they are kept
        under."""
        return f"{type(self).__name__.lower()}-{getattr(self, 'importance', '')}"

    @property
    def scores_need_texts(self) -> bool:
        """Whether `scores` looks at them at all."""
        return True

    def amounts(self, model: TextModel) -> tuple[float, ...]:
        """The fractions that a search may try, ascending, each another cut."""
        return GRID

    def check_depth(self, model: TextModel) -> None:
        """Raises ConfigError where `fraction` of this model would be nothing, or all of it."""

    def depth_notes(self, model: TextModel) -> tuple[str, ...]:
        """What a user should know before `fraction` is cut, one line each."""
        return ()

    def check_count(self) -> None:
        """Raises ConfigError where a fixed number is asked for, and the deepest cut too."""
        count = getattr(self, "count", None)
        if count is not None and self.max_quality_drop is not None:
            raise ConfigError(
                f"count={count}: with max_quality_drop the deepest cut is searched for; give one of them, and fraction "
                "for where the search begins"
            )

    def share(self, model: TextModel) -> float:
        """What `fraction` really is of this model."""
        return self.fraction

    def with_fraction(self, fraction: float) -> Self:
        """The same method with another depth."""
        return replace(self, fraction=fraction)

    @contextmanager
    def held(self, net: PreTrainedModel) -> Iterator[None]:
        """What has to hold while `net` is trained, and is permanent after: the zeros of a mask, say."""
        yield

    def finished(self, model: TextModel, data: Splits, folder: Path) -> TextModel:
        """The result in the form that it leaves in; `folder` is empty and its own."""
        return model

    # what follows from it

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.control == "from_scratch" and self.recovery == "none":
            raise ConfigError(
                "control='from_scratch': with recovery=none there is no training whose budget it could have; give a "
                "recovery, or control=none"
            )

    def check(self, model: TextModel, data: Splits) -> None:
        super().check(model, data)
        self._check_recovery(data, task_named(model.task).labelled)
        check_measurable(self.max_quality_drop, model, data)
        self.beginning(model).check_depth(model)

    def _check_recovery(self, data: Splits, labelled: bool) -> None:
        if self.recovery == "none":
            return
        if not len(data.train):
            raise DataError(
                f"recovery={self.recovery} trains on the train split, and it is empty; give data with one, or "
                "recovery=none"
            )
        if labelled and not data.train.labels:
            raise DataError(
                f"recovery={self.recovery} needs labels in the train split; give data with some, or recovery=none"
            )

    def notes(self, model: TextModel) -> tuple[str, ...]:
        first = self.beginning(model)
        notes = [*super().notes(model), *first.depth_notes(model)]
        if self.max_quality_drop is not None:
            notes.append(
                f"that is the first cut, fraction={first.fraction:g}; the deepest that holds the bound is searched for"
            )
        share = first.share(model)
        if self.rounds == 1 and share > ADVISED:
            notes.append(
                f"{share:.2g} is cut at once; above a third, rounds=2 or more (cut, train, cut ...) is "
                "likely to lose less"
            )
        return tuple(notes)

    def beginning(self, model: TextModel) -> Self:
        """The same method at the depth that is cut first: of those that a search may try, the nearest to `fraction`."""
        if self.max_quality_drop is None:
            return self
        amounts = self.amounts(model)
        if not amounts:
            raise ConfigError("max_quality_drop: this model has too little for any cut; choose another method")
        return self.with_fraction(min(amounts, key=lambda amount: abs(amount - self.fraction)))

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        return self.finished(self.pruned(model, data, seed), data, folder)

    def pruned(self, model: TextModel, data: Splits, seed: int = 0) -> TextModel:
        """Cut and trained, as a torch network."""
        self._check_recovery(data, task_named(model.task).labelled)
        schedule = replace(self.schedule(seed), epochs=self.epochs / self.rounds)
        made = model
        for number in range(1, self.rounds + 1):
            scores = self._kept_scores(made, data, seed) if number == 1 else self._scores(made, data, seed)
            made = self.cut(_copy(made), scores, self.fraction * number / self.rounds, model)
            if self.recovery != "none":
                stage = names.RECOVER if number == self.rounds else f"{names.RECOVER}_{number}"
                with self.held(made.network):
                    recover(made, model, data, self.recovery, schedule, self.lora_rank, stage)
        return made.with_net(made.network.eval())

    def from_scratch(self, model: TextModel, data: Splits, seed: int = 0) -> TextModel:
        """The architecture that the cut leaves, trained from random weights with the recovery's budget (Liu et al.,
        arXiv:1810.05270): adapters beside random weights would be no rival, so all weights are trained then."""
        cut = self.cut(_copy(model), self._kept_scores(model, data, seed), self.fraction, model)
        made = replace(cut, net=with_random_weights(cut.network, seed), fresh=True)
        how = "full" if self.recovery == "lora" else self.recovery
        with self.held(made.network):
            recover(made, model, data, how, self.schedule(seed), self.lora_rank, names.FROM_SCRATCH)
        return replace(made, fresh=False)

    def _scores(self, model: TextModel, data: Splits, seed: int) -> Scores:
        return from_main(lambda: self.scores(model, self._texts(data, seed), seed))

    def _kept_scores(self, model: TextModel, data: Splits, seed: int) -> Scores:
        """From the run's memory where an earlier run, or an earlier trial of a search, measured them."""
        return from_main(lambda: self._remembered(model, self._texts(data, seed), seed))

    def _texts(self, data: Splits, seed: int) -> Texts:
        return calibration_texts(data, self.calibration_texts, seed) if self.scores_need_texts else Texts(())

    def _remembered(self, model: TextModel, texts: Texts, seed: int) -> Scores:
        session = _session.current()
        key = f"importance-{self.scored_by}-{answers_key(model, texts, 0)}-{texts.fingerprint[:8]}-{seed}"
        kept = session.recall(key)
        if kept is not None:
            return load_file(kept / FILE)
        found = self.scores(model, texts, seed)
        with tempfile.TemporaryDirectory(prefix="llmops-importance-") as folder:
            save_file({name: score.contiguous() for name, score in found.items()}, Path(folder) / FILE)
            session.keep(key, Path(folder))
        return found


def _copy(model: TextModel) -> TextModel:
    return model.with_net(deepcopy(model.network))


def with_random_weights(net: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A copy with weights drawn as its class draws them; its shapes may be no stock ones."""
    copy = deepcopy(net)
    for parameter in copy.parameters():
        # transformers leaves weights alone that it loaded
        parameter._is_hf_initialized = False  # type: ignore[attr-defined]
    torch.manual_seed(seed)
    with torch.no_grad():
        for module in copy.modules():
            copy._init_weights(module)
    return copy
