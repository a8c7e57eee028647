"""Find the chain of methods that keeps a deployer's limits and is best at one thing, within a time budget."""

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import mlflow
from annotated_types import Ge, Gt
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from rich.text import Text

from mlflow_llmops import names
from mlflow_llmops.data.load import load_data
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ConfigError, DataError, GateFailed, ModelError
from mlflow_llmops.measure.limits import Missed, Wanted, distance, said_missed
from mlflow_llmops.methods._blocks import transformer_blocks
from mlflow_llmops.models.tasks import task_named
from mlflow_llmops.registry.versions import check_name
from mlflow_llmops.search.budget import Budget, Costs, costs_of, parts_by_text
from mlflow_llmops.search.kept import workshop
from mlflow_llmops.search.space import Chain, Space, default_space, read_space, said
from mlflow_llmops.search.study import DONE, Study, Trial
from mlflow_llmops.steps._accuracy_control import Bounded
from mlflow_llmops.steps._chain_link import Link, lineage, proven_link, registered
from mlflow_llmops.steps._full_precision import in_full_precision
from mlflow_llmops.steps._options import (
    DOCSTRINGS,
    Data,
    EvalData,
    LabelColumn,
    MeasureSeconds,
    Model,
    Outcome,
    Overlap,
    RegisterAs,
    Seed,
    TextColumn,
    TrustRemoteCode,
    data_params,
    said_of_overlap,
)
from mlflow_llmops.steps._search_report import log_picture, log_trials, shown_score, trials_table
from mlflow_llmops.steps._search_trial import Bench, asked_for, run_trial
from mlflow_llmops.steps._side_by_side import with_answers
from mlflow_llmops.steps._tasks import MEASURES
from mlflow_llmops.tracking.lineage import log_data
from mlflow_llmops.tracking.loaded import LoadedModel, load_model
from mlflow_llmops.tracking.references import check_there
from mlflow_llmops.tracking.report import table as shown_table
from mlflow_llmops.tracking.run import log_measurements, log_params, start_run
from mlflow_llmops.tracking.session import work_folder

KEPT = "made"
"""The folder beside those of the runs that holds what all searches made; it may be deleted whenever none is at work."""
PROBE = 128
"""Texts that the uncut model scores to learn what a pass over the train split takes."""


def search(
    model: Model,
    data: Data = DOCSTRINGS,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    eval_data: EvalData = None,
    overlap: Overlap = "drop",
    task: Annotated[str, "text-classification or text-generation"] = "text-classification",
    objective: Annotated[Literal["throughput", "latency", "size"], "what is to be best within the limits"] = (
        "throughput"
    ),
    max_quality_drop: Annotated[
        float | None,
        "largest loss at the interval's low end: of accuracy, or nats per token for text-generation; auto: no limit",
        Ge(0),
    ] = 0.02,
    min_speedup: Annotated[
        float | None,
        "how fast: smallest speed-up over the uncut model, at the interval's low end; auto: no limit",
        Gt(0),
    ] = None,
    max_latency_p95_ms: Annotated[
        float | None, "largest p95 latency at the interval's high end: of one text, or of a call; auto: no limit", Gt(0)
    ] = None,
    max_size_mib: Annotated[float | None, "largest size of the artifact on disk; auto: no limit", Gt(0)] = None,
    batch_size: Annotated[
        int | None, "texts in the calls that speed is asked about; auto: the data through the token budget", Ge(1)
    ] = None,
    length: Annotated[int | None, "tokens of each of these texts; auto: as the data has them", Ge(1)] = None,
    time_budget_min: Annotated[float, "minutes for everything; a resumed search counts those before", Ge(0)] = 30.0,
    space: Annotated[
        str | None,
        "what may be tried: steps between '>', alternatives between '|', as none | prune.layers(count=3) > "
        "distill.logits(epochs=2) > quantize.int8_static; auto: by the model",
    ] = None,
    epochs: Annotated[float, "passes over the train split of each training, where space is auto", Gt(0)] = 3.0,
    sampler: Annotated[
        Literal["tpe", "grid"], "order of the trials that train: by Optuna's TPE, or all as listed"
    ] = "tpe",
    max_trials: Annotated[int | None, "trials at most; auto: as many as the time allows", Ge(1)] = None,
    trial_seconds: Annotated[float, "time for measuring the speed of a trial and the uncut model beside it", Gt(0)] = (
        5.0
    ),
    measure_seconds: MeasureSeconds = 10.0,
    register_as: RegisterAs = None,
    trust_remote_code: TrustRemoteCode = False,
    resume: Annotated[str | None, "run id of an interrupted search, to go on in it; auto: none"] = None,
    seed: Seed = 0,
) -> Outcome:
    """Try chains of methods, choose on dev, and measure, prove and register the winner on test."""
    started = time.monotonic()
    params = {
        "search.model": model,
        "search.objective": objective,
        "search.max_quality_drop": max_quality_drop,
        "search.min_speedup": min_speedup,
        "search.max_latency_p95_ms": max_latency_p95_ms,
        "search.max_size_mib": max_size_mib,
        "search.batch_size": batch_size,
        "search.length": length,
        "search.sampler": sampler,
        "search.register_as": register_as,
        "search.seed": seed,
        **data_params("search", data, text_column, label_column, eval_data, overlap),
    }
    with start_run("search", {names.VERB: "search", names.TASK: task}, params, resume) as run:
        labelled = task_named(task).labelled
        wanted = Wanted(
            max_quality_drop, min_speedup, max_latency_p95_ms, max_size_mib, task, objective, batch_size, length
        )
        if register_as is not None:
            check_name(register_as)
        if space is not None:
            read_space(space, task)  # a typing mistake is told before any data is read
        check_there(model)  # before the data, which may take long to read
        splits = load_data(data, text_column, label_column if labelled else None, eval_data, overlap)
        if not len(splits.dev):
            raise DataError(f"data={data}: dev has no texts, and a search chooses on it; add some")
        loaded = load_model(model, task, trust_remote_code=trust_remote_code)
        came = lineage(loaded)
        source, _ = in_full_precision(loaded)
        if source.model.net is None:
            raise ModelError(f"model={model} is a graph of kind {source.model.kind}; search from the torch model")
        if length is not None and length > source.model.max_length:
            raise ConfigError(f"length={length}: the model takes {source.model.max_length} tokens at most")
        tried = space or default_space(task, len(transformer_blocks(source.model.network)), epochs)
        plan = read_space(tried, task)
        log_params({"search.space": tried})
        log_data(splits)
        if resume is not None:
            _end_interrupted(run)
        work = work_folder(run.info.run_id)
        study = Study(work / "study.journal", plan, sampler, seed)
        budget = Budget(60 * time_budget_min, study.spent(), started=started)
        with tempfile.TemporaryDirectory(prefix="llmops-search-") as folder:
            if budget.left() > 0:
                source = _asked(source, splits, Path(folder), budget, measure_seconds)
            shop = workshop(source.model, splits, seed, work_folder(KEPT), work / "partial")
            costs = _costs(study, plan, source, splits, trial_seconds)
            bench = Bench(shop, wanted, costs, budget, trial_seconds)
            why = _try_all(bench, study, tried, max_trials)
            trials = study.trials()
            best = _best(trials, wanted)
            log_trials(trials, wanted, best, tried)
            log_picture(trials)
            log_measurements({names.SEARCH_TRIALS: float(len(trials)), names.SEARCH_SECONDS: budget.used()})
            if best is None:
                raise _nothing(trials, wanted, why)
            link, missed = _proven(bench, source, plan, best, came, Path(folder), measure_seconds, why, len(trials))
            if missed:
                raise _refused(link, best, missed, trials, wanted, register_as)
            if register_as is not None:
                link = registered(link, register_as)
        log_measurements(link.measured)
        log_measurements(link.rows[0].measured, names.BASELINE_PREFIX)
        mlflow.set_tag(names.VERDICT, link.verdict)
        shutil.rmtree(work, ignore_errors=True)
    told = [f"winner: {best.chain}", link.verdict, f"model: {link.result.reference}"]
    told += [f"registered as version {link.version} of {register_as}"] if link.version else []
    told += [f"{budget.used():.0f} s of {budget.seconds:.0f} s; {why}", *said_of_overlap(splits)]
    shown = (trials_table(trials, wanted, best), shown_table(link.rows, "The winner on test"), Text("\n".join(told)))
    return Outcome(run.info.run_id, shown, {"link": link, "best": best, "trials": trials})


def _end_interrupted(run: Run) -> None:
    """The trial that was at work when the process was killed has a run that nobody ends; it is tried again."""
    client = MlflowClient()
    inside = f"tags.`mlflow.parentRunId` = '{run.info.run_id}' and attributes.status = 'RUNNING'"
    for each in client.search_runs([run.info.experiment_id], inside):
        client.set_terminated(each.info.run_id, "KILLED")


def _asked(source: LoadedModel, data: Splits, folder: Path, budget: Budget, seconds: float) -> LoadedModel:
    """The uncut model as a fresh process answers, once for the whole search; how long that takes is kept for the
    winner at the end, who is asked too."""
    start = time.monotonic()
    (folder / "uncut").mkdir()
    asked = with_answers(source, data, folder / "uncut")
    budget.reserve = 2 * (time.monotonic() - start) + 1.5 * seconds
    return asked


def _costs(study: Study, plan: Space, source: LoadedModel, data: Splits, seconds: float) -> Costs:
    few = data.train.pick(range(min(PROBE, len(data.train))))
    start = time.perf_counter()
    MEASURES[source.model.task].held(source.model, few)
    scoring = (time.perf_counter() - start) * len(data.train) / max(1, len(few))
    parts, (made, measuring) = parts_by_text(plan.chains), study.seen_seconds()
    return costs_of(scoring, [(parts[text], each) for text, each in made if text in parts], [seconds, *measuring])


def _try_all(bench: Bench, study: Study, space: str, most: int | None) -> str:
    """Trial after trial, as long as one fits into the time that is left; says why it ended."""
    while True:
        trials = study.trials()
        best = _best(trials, bench.wanted)
        if most is not None and len(trials) >= most:
            return f"{most} trials were allowed"
        left = bench.budget.left()
        if left <= 0:
            return "the time budget is over"
        too_long = {said(chain): need for chain in study.space.chains if (need := bench.estimate(chain)) > left}
        found = study.next(list(too_long))
        if found is None:
            tried = {trial.chain for trial in trials}
            untried = [need for text, need in too_long.items() if text not in tried]
            if not untried:
                return f"all {len(study.space.chains)} chains were tried"
            return f"the time budget has {left:.0f} s left, and the next trial would take about {min(untried):.0f} s"
        trial, chain = found
        ended = run_trial(bench, trial, len(trials), chain, best)
        study.tell(trial, ended, bench.wanted, bench.wanted.missed(ended.measured))
        trials = study.trials()
        best = _best(trials, bench.wanted)
        log_trials(trials, bench.wanted, best, space)
        if best is not None and best.number == ended.number:
            mlflow.set_tag(names.BEST_SO_FAR, ended.model)


def _best(trials: Sequence[Trial], wanted: Wanted) -> Trial | None:
    """Of those that keep all limits on dev."""
    kept = [trial for trial in trials if trial.outcome == DONE and not wanted.missed(trial.measured)]
    return max(kept, key=lambda trial: wanted.score(trial.measured), default=None)


def _nothing(trials: Sequence[Trial], wanted: Wanted, why: str) -> GateFailed:
    """What to say where no trial keeps the limits: the nearest, and what it misses."""
    known = [trial for trial in trials if trial.measured]
    measured = [trial for trial in known if trial.outcome == DONE] or known
    rest = f"{why}; nothing is registered"
    if not measured:
        reasons = dict.fromkeys(trial.why for trial in trials)
        said_why = f" ({'; '.join(reasons)})" if reasons else ""
        return GateFailed(f"no trial was measured{said_why}: {rest}; give more time (time_budget_min)")

    def missed(trial: Trial) -> dict[str, Missed]:
        return (wanted if trial.outcome == DONE else wanted.asks_of_speed()).missed(trial.measured)

    nearest = min(measured, key=lambda trial: distance(missed(trial)))
    error = GateFailed(
        f"no chain keeps the limits on dev; the nearest is trial {nearest.number}, {nearest.chain}"
        f"{'' if nearest.outcome == DONE else ', which was not trained'}: {said_missed(missed(nearest))}. {rest}; "
        "allow more time, or wider limits"
    )
    error.shown = (trials_table(trials, wanted, None),)
    return error


def _proven(
    bench: Bench,
    source: LoadedModel,
    plan: Space,
    best: Trial,
    came: dict[str, str],
    folder: Path,
    seconds: float,
    why: str,
    count: int,
) -> tuple[Link, dict[str, Missed]]:
    """The winner measured on test beside the uncut model, loaded again in a fresh process, and judged by the limits."""
    wanted, shop, chain = bench.wanted, bench.shop, _chain(plan, best)
    reason = (
        f"the best at {wanted.objective} on dev ({shown_score(best, wanted)}) of {count} trials, within "
        f"{wanted.said()}; {why}"
    )
    made = shop.make(chain).model
    path = " > ".join(part.name for part in chain)
    tags = {names.VERB: "search", names.METHOD: chain[-1].name, names.TASK: wanted.task, names.CHAIN: best.chain}
    (folder / "winner").mkdir()
    with start_run(f"winner: {path}"[:250], tags, {}) as run:
        log_params({f"{part.name}.{name}": value for part in chain for name, value in part.options.items()})
        log_data(shop.data)
        methods = {part.name: part.method for part in chain}
        link = proven_link(
            methods,
            source,
            Bounded(made, reason, {}),
            shop.data,
            run.info.run_id,
            folder / "winner",
            came,
            path,
            shop.seed,
            seconds,
        )
        asked = asked_for(wanted, {"baseline": source.model, "winner": link.result.model}, shop.data, seconds)
        now: dict[str, Any] = asked.get("winner", {})
        log_measurements(now)
        link = replace(link, measured={**link.measured, **now})
        missed = wanted.missed(link.measured)
        checks = [{"check": option, "said": each.said(option), "passed": False} for option, each in missed.items()]
        mlflow.log_dict({"limits": wanted.said(), "passed": not missed, "missed": checks}, names.GATE)
    return link, missed


def _refused(
    link: Link, best: Trial, missed: dict[str, Missed], trials: Sequence[Trial], wanted: Wanted, name: str | None
) -> GateFailed:
    error = GateFailed(
        f"the best on dev, trial {best.number}, {best.chain}, does not keep the limits on test: {said_missed(missed)}; "
        f"nothing is registered{f' as {name}' if name else ''}, the model is {link.result.reference}: "
        "ask for a little more than you need, or give more texts"
    )
    error.shown = (trials_table(trials, wanted, best), shown_table(link.rows, "The best on dev, on test"))
    return error


def _chain(plan: Space, trial: Trial) -> Chain:
    return next(chain for chain in plan.chains if said(chain) == trial.chain)
