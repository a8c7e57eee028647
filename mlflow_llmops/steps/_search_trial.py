"""One trial of a search: a chain made, measured beside the uncut model on dev, in a nested run."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import optuna

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ArtifactMismatch, ConfigError, DataError, LLMOpsError, MissingExtra, ModelError
from mlflow_llmops.flavors.by_kind import log_text_model, save_text_model
from mlflow_llmops.measure.limits import Wanted, said_missed
from mlflow_llmops.measure.measurement import Measurements
from mlflow_llmops.measure.size import measure_size
from mlflow_llmops.measure.verdict import verdict
from mlflow_llmops.methods import _session
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.search.asked import speed_as_asked
from mlflow_llmops.search.budget import Budget, Costs, OutOfTime
from mlflow_llmops.search.kept import Workshop
from mlflow_llmops.search.space import Chain, said, sketch_of
from mlflow_llmops.search.study import DONE, FAILED, LEFT, Trial
from mlflow_llmops.steps._side_by_side import counted
from mlflow_llmops.steps._tasks import MEASURES
from mlflow_llmops.tracking.lineage import dataset_of, log_data
from mlflow_llmops.tracking.report import Row, markdown
from mlflow_llmops.tracking.run import log_measurements, start_run
from mlflow_llmops.tracking.session import run_session

REFUSED = (ArtifactMismatch, ConfigError, DataError, MissingExtra, ModelError, RuntimeError, ValueError)
"""What a chain may fail with and the search goes on: what this package refuses, and what torch, NNCF and the runtimes
raise, since one trial of an hour's search must not end it. A full disk is none of them."""
BASELINE, TRIAL = "baseline", "trial"


@dataclass(frozen=True)
class Bench:
    """What all trials of a search share. `seconds` are for measuring one trial's speed."""

    shop: Workshop
    wanted: Wanted
    costs: Costs
    budget: Budget
    seconds: float

    @property
    def dev(self) -> Splits:
        """The data with dev where what is measured is looked for, so that test is seen once, by the winner."""
        return replace(self.shop.data, test=self.shop.data.dev)

    def estimate(self, chain: Chain) -> float:
        """Seconds that a trial of it will take, by what its parts took so far."""
        missing = self.shop.missing(chain)
        if not any(part.trains for part in missing):
            return self.costs.of(missing)
        return self.costs.of([*missing, *self.shop.missing(sketch_of(chain))], measured=2)


def run_trial(bench: Bench, trial: optuna.Trial, number: int, chain: Chain, best: Trial | None) -> Trial:
    """Make and measure it in a nested run; one that is better than `best` and keeps the limits has its model logged."""
    start = time.perf_counter()
    text = said(chain)
    tags = {
        names.VERB: "search",
        names.METHOD: chain[-1].name,
        names.CHAIN: text,
        names.TASK: bench.shop.teacher.task,
        names.SPLIT: "dev",
        names.CHAIN_FINGERPRINT: bench.shop.key(chain),
    }
    options = {f"{part.name}.{name}": value for part in chain for name, value in part.options.items()}
    run_id = ""
    measured: Measurements = {}
    model = ""
    try:
        with start_run(text[:250], tags, {**options, "search.seed": bench.shop.seed}) as run:
            run_id = run.info.run_id
            log_data(bench.shop.data)
            with run_session(run_id) as offered, _session.session(_watched(offered, bench.budget)):
                outcome, (why, measured) = LEFT, _hopeless(bench, trial, chain, best)
                if not why:
                    made = _make(bench, trial, chain)
            if why:
                mlflow.set_tag(names.VERDICT, f"not trained: {why}")
            else:
                outcome = DONE
                found = _measure(bench, trial, made)
                measured = found[TRIAL]
                missed = bench.wanted.missed(measured)
                why = said_missed(missed)
                # its model first, which the numbers are then linked to
                if not missed and (best is None or bench.wanted.score(measured) > bench.wanted.score(best.measured)):
                    model = log_text_model(made).model_uri
                _log_measured(bench, found, made.kind, text)
    except REFUSED as error:
        outcome, why = FAILED, str(error) if isinstance(error, LLMOpsError) else f"{type(error).__name__}: {error}"
    except OutOfTime as error:
        outcome, why = LEFT, str(error)
    return Trial(number, text, outcome, why, run_id, measured, time.perf_counter() - start, model)


def compared(
    wanted: Wanted, models: Mapping[str, TextModel], data: Splits, seconds: float, quality: bool = True
) -> dict[str, Measurements]:
    """Speed, size and quality of models in memory, all in turn, on the test split of `data`, which may be another."""
    first = next(iter(models))
    task = MEASURES[models[first].task]
    shared = seconds / 2 if wanted.batch_size else seconds
    _, found = task.speed(models, data, shared)
    asked = asked_for(wanted, models, data, shared)
    good = task.quality_here(models, data) if quality else {}
    measured = {
        label: {**good.get(label, {}), **found[label], **asked.get(label, {}), **_size(model)}
        for label, model in models.items()
    }
    for each in measured.values():
        each[names.SIZE_RATIO] = counted(each, names.DISK) / counted(measured[first], names.DISK)
    return measured


def asked_for(wanted: Wanted, models: Mapping[str, TextModel], data: Splits, seconds: float) -> dict[str, Measurements]:
    """Speed in the calls that are asked about; nothing where none are."""
    if wanted.batch_size is None or wanted.length is None:
        return {}
    return speed_as_asked(models, data.test.texts, wanted.batch_size, wanted.length, seconds)


def _hopeless(bench: Bench, trial: optuna.Trial, chain: Chain, best: Trial | None) -> tuple[str, Measurements]:
    """Why training would be in vain, by the untrained shape, which is as fast and as large, and that one's speed and
    size; nothing of both where it may not be."""
    sketch = sketch_of(chain)
    if not sketch or not any(part.trains for part in bench.shop.missing(chain)):
        return "", {}
    made = _make(bench, trial, sketch)
    start = time.perf_counter()
    shape = compared(bench.wanted, {BASELINE: bench.shop.teacher, TRIAL: made}, bench.dev, bench.seconds, False)[TRIAL]
    bench.costs.saw_measuring(time.perf_counter() - start)
    log_measurements(shape, names.UNTRAINED_PREFIX)
    missed = bench.wanted.asks_of_speed().missed(shape)
    if missed:
        return said_missed(missed), shape
    if best is not None and bench.wanted.score(shape, _BETTER[bench.wanted.objective]) <= bench.wanted.score(
        best.measured
    ):
        why = f"by {bench.wanted.objective} its shape is no better than trial {best.number}, which keeps the limits"
        return why, shape
    return "", {}


_BETTER = {"throughput": "high", "latency": "high", "size": "low"}
"""The end of the interval that speaks for a shape."""


def _make(bench: Bench, trial: optuna.Trial, chain: Chain) -> TextModel:
    made = bench.shop.make(chain)
    for part, seconds in made.seconds.items():
        bench.costs.saw(part, seconds)
    before: list[tuple[str, float]] = trial.user_attrs.get("made", [])
    trial.set_user_attr("made", [*before, *((str(part), seconds) for part, seconds in made.seconds.items())])
    return made.model


def _measure(bench: Bench, trial: optuna.Trial, made: TextModel) -> dict[str, Measurements]:
    start = time.perf_counter()
    found = compared(bench.wanted, {BASELINE: bench.shop.teacher, TRIAL: made}, bench.dev, bench.seconds)
    seconds = time.perf_counter() - start
    bench.costs.saw_measuring(seconds)
    trial.set_user_attr("measuring", seconds)
    return found


def _log_measured(bench: Bench, found: Mapping[str, Measurements], kind: str, text: str) -> None:
    """As every verb does."""
    dataset = dataset_of(bench.shop.data, "dev")
    log_measurements(found[BASELINE], names.BASELINE_PREFIX, dataset=dataset)
    log_measurements(found[TRIAL], dataset=dataset)
    told = verdict(found[TRIAL])
    mlflow.set_tags({names.VERDICT: told, names.KIND: kind})
    rows = [Row(BASELINE, found[BASELINE]), Row(text, found[TRIAL], kind=kind)]
    mlflow.log_text(markdown(rows, f"{text}: {told}", ["measured on dev"]), names.REPORT)


def _size(model: TextModel) -> Measurements:
    """Of the artifact as it would be logged."""
    with tempfile.TemporaryDirectory(prefix="llmops-size-") as folder:
        save_text_model(model, Path(folder) / "saved")
        return measure_size(model, Path(folder) / "saved")


def _watched(offered: _session.Session, budget: Budget) -> _session.Session:
    """The run's session, which ends a training that is still at work when the budget ends."""

    def record(metrics: Mapping[str, float], step: int) -> None:
        offered.record(metrics, step)
        budget.check()

    return replace(offered, record=record)
