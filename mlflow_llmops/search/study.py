"""The order of the trials: an Optuna study in a journal, which a kill leaves whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mlflow_llmops.measure.limits import Missed, Wanted, distance
from mlflow_llmops.measure.measurement import Measurements, flat, from_flat
from mlflow_llmops.search.space import Chain, Space, is_trained, said

STARTUP = 8
"""Trials with a value before the sampler looks at them; those without training are among them."""
DRAWS = 10
"""Draws of a chain that was tried already, before the first that was not is taken."""
DONE, LEFT, FAILED = "measured", "not trained", "failed"


@dataclass(frozen=True)
class Trial:
    """One that came to its end. `measured` is of dev: of a shape that was not trained its speed and size, and nothing
    where it failed."""

    number: int
    chain: str
    outcome: str
    why: str
    run_id: str
    measured: Measurements
    seconds: float
    model: str = ""
    """The reference of the logged model, for one that was the best so far."""


class Study:
    """The trials so far, and which chain is next."""

    def __init__(self, file: Path, space: Space, sampler: str, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        file.parent.mkdir(parents=True, exist_ok=True)
        self.space, self.sampler = space, sampler
        self.study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(file))),
            study_name="search",
            direction="maximize",
            load_if_exists=True,
        )
        # another seed after a resume: the same would draw again what was drawn
        drawn = len(self.study.trials)
        self.study.sampler = TPESampler(seed=(seed + drawn) % 2**32, n_startup_trials=STARTUP, multivariate=True)
        self._fail_interrupted()

    def trials(self) -> list[Trial]:
        """Those that came to their end, each chain once."""
        return [_trial(each) for each in self.study.get_trials(deepcopy=False) if "ended" in each.user_attrs]

    def spent(self) -> float:
        """Seconds of them."""
        return sum(trial.seconds for trial in self.trials())

    def seen_seconds(self) -> tuple[list[tuple[str, float]], list[float]]:
        """Of every part that was made, as it is written, and of every measuring."""
        kept = [each.user_attrs for each in self.study.get_trials(deepcopy=False)]
        made = [(part, seconds) for attrs in kept for part, seconds in attrs.get("made", [])]
        return made, [attrs["measuring"] for attrs in kept if "measuring" in attrs]

    def next(self, passed_over: Sequence[str] = ()) -> tuple[optuna.Trial, Chain] | None:
        """A chain that was not tried: those without training first, then what the sampler draws (or, for a grid, the
        next of the list). None where all were tried or `passed_over`."""
        tried = {trial.chain for trial in self.trials()} | set(passed_over)
        left = [chain for chain in self.space.chains if said(chain) not in tried]
        if not left:
            return None
        if self.sampler == "grid" or not is_trained(left[0]):
            return self._asked(left[0])
        for _ in range(DRAWS):
            trial, chain = self._ask()
            if chain is not None and said(chain) not in tried:
                return trial, chain
            self.study.tell(trial, state=TrialState.FAIL)
        return self._asked(left[0])

    def tell(self, trial: optuna.Trial, ended: Trial, wanted: Wanted, missed: Mapping[str, Missed]) -> None:
        """Keep what came of it, before the study counts it as done."""
        trial.set_user_attr("ended", {**vars(ended), "measured": flat(ended.measured)})
        if ended.outcome != DONE:
            self.study.tell(trial, state=TrialState.PRUNED if ended.outcome == LEFT else TrialState.FAIL)
            return
        trial.set_constraint("limits", distance(missed))
        self.study.tell(trial, wanted.score(ended.measured))

    def _asked(self, chain: Chain) -> tuple[optuna.Trial, Chain]:
        written = self.space.written[said(chain)]
        self.study.enqueue_trial({_step(i): each for i, each in enumerate(written)})
        trial, _ = self._ask()
        return trial, chain

    def _ask(self) -> tuple[optuna.Trial, Chain | None]:
        trial = self.study.ask()
        written = [trial.suggest_categorical(_step(i), list(step)) for i, step in enumerate(self.space.steps)]
        return trial, self.space.chain(written)

    def _fail_interrupted(self) -> None:
        """What was at work when the process was killed is tried again; its parts that were made are kept."""
        for each in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
            if each.state == TrialState.RUNNING:
                self.study.tell(each.number, state=TrialState.FAIL)


def _step(number: int) -> str:
    return f"step {number + 1}"


def _trial(kept: optuna.trial.FrozenTrial) -> Trial:
    stored = kept.user_attrs["ended"]
    return Trial(**{**stored, "measured": from_flat(stored["measured"])})
