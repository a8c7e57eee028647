"""Comparisons from what runs have stored: nothing is measured, and what was measured elsewhere is not ranked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.measure.measurement import Estimate, Measurements
from mlflow_llmops.tracking.comparison import Comparison, Made
from mlflow_llmops.tracking.pareto import estimate_of
from mlflow_llmops.tracking.report import Row

PRODUCTS = (names.SPEEDUP, names.LATENCY_SPEEDUP, names.GENERATION_SPEEDUP, names.SIZE_RATIO, names.RETAINED)
"""Ratios against a baseline: along a chain they multiply, and so do the ends of their intervals."""
AGAINST = (*PRODUCTS, names.QUALITY_CHANGE, names.AGREEMENT)
"""All that says something about a baseline only."""


@dataclass(frozen=True)
class Stored:
    """A run of a method: its model, the one it was made from, and the ids by which runs find each other."""

    run: Run
    row: Row
    baseline: Row
    source: str
    result: str

    @property
    def starts(self) -> bool:
        """What was trained on labels is the teacher of what follows; the untrained model before it is nobody's."""
        return self.run.data.tags.get(names.VERB) == "finetune"


def measured_in(metrics: Mapping[str, float], prefix: str = "") -> Measurements:
    """Estimates and counts, from the values as MLflow stores them; an end that is not there is not known."""
    own = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
    found: Measurements = {}
    for name, value in own.items():
        low, high = own.get(name + names.LOW), own.get(name + names.HIGH)
        if name.endswith((names.LOW, names.HIGH)):
            continue
        if low is None and high is None:
            found[name] = value
        else:
            found[name] = Estimate(value, float("-inf") if low is None else low, float("inf") if high is None else high)
    return found


def runs_of(ids: Iterable[str]) -> list[Run]:
    """Raises ConfigError for one that is not there."""
    found = []
    for run_id in ids:
        try:
            found.append(mlflow.get_run(run_id))
        except MlflowException as error:
            raise ConfigError(f"runs={run_id}: there is no such run in {mlflow.get_tracking_uri()}") from error
    return found


def runs_of_experiment(experiment: str) -> list[Run]:
    """The finished runs of methods in it, nested ones too; where there are none, those that compared.

    Raises ConfigError for an experiment that is not there or has neither.
    """
    known = mlflow.get_experiment_by_name(experiment)
    if known is None:
        raise ConfigError(f"experiment={experiment} is not in {mlflow.get_tracking_uri()}; write its name, not its id")
    runs: list[Run] = mlflow.search_runs([known.experiment_id], "status = 'FINISHED'", output_format="list")
    methods = [run for run in runs if _is_method(run)]
    found = methods or [run for run in runs if _compares(run)]
    if not found:
        raise ConfigError(f"experiment={experiment}: none of its finished runs has measured a model")
    return found


def made_in(runs: Sequence[Run], versions: Mapping[str, str] | None = None) -> list[Made]:
    """What each run of a method among `runs`, or nested in one of them, gave; the oldest first."""
    client = MlflowClient()
    found = {run.info.run_id: run for run in runs if _is_method(run)}
    for run in runs:
        if not _is_method(run):
            nested = f"tags.mlflow.parentRunId = '{run.info.run_id}'"
            children = client.search_runs([run.info.experiment_id], nested)
            found |= {child.info.run_id: child for child in children if _is_method(child)}
    ordered = sorted(found.values(), key=lambda run: run.info.start_time)
    stored = [_stored(run, versions or {}) for run in ordered]
    labels = {each.result: each.row.label for each in stored}
    return [
        Made(each.row.label, labels.get(each.source, each.baseline.label), each.result, each.row) for each in stored
    ]


def stored_comparison(runs: Sequence[Run], versions: Mapping[str, str] | None = None) -> Comparison:
    """All that `runs` have measured, beside each other; `versions` are the numbers of their models, by run.

    Raises ConfigError for runs without measurements, and for numbers of different data or hardware: they would be
    ranked by their machine, or by how easy their texts were.
    """
    rows: list[Row] = []
    methods: list[Stored] = []
    places: dict[str, tuple[str, str]] = {}
    for run in sorted(runs, key=lambda run: run.info.start_time):
        label = f"{run.info.run_name} ({run.info.run_id[:8]})"
        if _is_method(run):
            methods.append(_stored(run, versions or {}))
            tags = run.data.tags
            places[label] = tags.get(names.DATA_FINGERPRINT, ""), tags.get(names.HARDWARE, "")
        elif _compares(run):
            evidence = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/{names.COMPARISON}")
            rows += [_row_of(each) for each in evidence["rows"]]
            places[label] = evidence["data_fingerprint"], evidence["hardware"]
        else:
            raise ConfigError(f"runs={run.info.run_id}: {run.info.run_name} has measured no model; give other runs")
    for position, what in enumerate(("data", "hardware")):
        _check_one(what, {label: place[position] for label, place in places.items()})
    chained, notes = _chained(methods)
    rows = _named_apart([*chained, *rows])
    if len(rows) < 2:
        raise ConfigError("there is only one model in these runs; give at least two")
    if len(places) > 1:
        notes.append(
            "these numbers were stored by different runs: ratios are paired within each, while texts per second and "
            "milliseconds also hold how busy the machine was; `compare --versions` and `benchmark` measure in turn"
        )
    (data, hardware), *_ = places.values()
    return Comparison(rows, notes, data, hardware, made=made_in(runs, versions))


def _is_method(run: Run) -> bool:
    return names.METHOD in run.data.tags and names.DISK in run.data.metrics


def _compares(run: Run) -> bool:
    client = MlflowClient()
    return any(file.path == names.COMPARISON for file in client.list_artifacts(run.info.run_id))


def _stored(run: Run, versions: Mapping[str, str]) -> Stored:
    tags, run_id = run.data.tags, run.info.run_id
    outputs = run.outputs.model_outputs if run.outputs else []
    own = {name: value for name, value in run.data.metrics.items() if not name.startswith(names.BASELINE_PREFIX)}
    source = tags.get(names.SOURCE_MODEL, "its baseline")
    version = versions.get(run_id, "")
    return Stored(
        run,
        Row(tags[names.METHOD], measured_in(own), version, tags.get(names.KIND, "torch"), f"runs:/{run_id}"),
        Row(source, measured_in(run.data.metrics, names.BASELINE_PREFIX)),
        tags.get(names.SOURCE_MODEL_ID, source),
        outputs[-1].model_id if outputs else run_id,
    )


def _row_of(stored: Mapping[str, object]) -> Row:
    metrics = stored["metrics"]
    if not isinstance(metrics, dict):
        raise TypeError("the metrics of a stored comparison are a table")
    label, version, kind, reference = (str(stored[key]) for key in ("label", "version", "kind", "reference"))
    return Row(label, measured_in(metrics), version, kind, reference)


def _check_one(what: str, found: Mapping[str, str]) -> None:
    if len(set(found.values())) > 1:
        said = "; ".join(f"{label}: {value or 'unknown'}" for label, value in found.items())
        raise ConfigError(f"these runs were measured on different {what}, so they are not ranked: {said}")
    if not all(found.values()):
        raise ConfigError(f"these runs do not say what {what} they were measured on, so they are not ranked")


def _chained(methods: Sequence[Stored]) -> tuple[list[Row], list[str]]:
    """Each model against the first one of its chain; the rows of the longest-standing chain have ratios."""
    by_result = {each.result: each for each in methods}
    roots: dict[str, Row] = {}
    rows: list[tuple[str, Row]] = []
    for each in methods:
        links = [each]
        while not links[-1].starts and links[-1].source in by_result:
            links.append(by_result[links[-1].source])
        first = links[-1]
        root = first.result if first.starts else first.source
        roots.setdefault(root, _as_baseline(first.row if first.starts else first.baseline))
        if links[0] is not first or not first.starts:
            own = [link.row.measured for link in links if not link.starts]
            rows.append((root, replace(each.row, measured={**each.row.measured, **_against_root(own)})))
    if not roots:
        return [], []
    counted, *others = roots
    notes = []
    if others:
        notes.append(
            f"ratios are against {roots[counted].label}; models with another baseline have none, and all are ranked by "
            "texts per second"
        )
    if any(len(row.measured) for _, row in rows):
        notes.append(
            "ratios and changes are added up along the chain of runs from the baseline on, with the ends of their "
            "intervals, which makes these wider than measured at once"
        )
    kept = [row if root == counted else _without_ratios(row) for root, row in rows]
    return [roots[counted], *(_without_ratios(roots[root]) for root in others), *kept], notes


def _against_root(links: Sequence[Measurements]) -> Measurements:
    found: Measurements = {}
    for name in (*PRODUCTS, names.QUALITY_CHANGE):
        steps = [estimate_of(Row("", link), name) for link in links]
        if any(step is None for step in steps):
            continue
        there = [step for step in steps if step is not None]
        total = there[0]
        for step in there[1:]:
            if name in PRODUCTS:
                total = Estimate(total.value * step.value, total.low * step.low, total.high * step.high)
            else:
                total = Estimate(total.value + step.value, total.low + step.low, total.high + step.high)
        found[name] = total.value if name == names.SIZE_RATIO else total
    return found


def _as_baseline(row: Row) -> Row:
    still: Measurements = {name: 1.0 for name in PRODUCTS if name in row.measured}
    return replace(row, measured={**row.measured, **still, names.SPEEDUP: 1.0, names.QUALITY_CHANGE: 0.0})


def _without_ratios(row: Row) -> Row:
    return replace(row, measured={name: value for name, value in row.measured.items() if name not in AGAINST})


def _named_apart(rows: Sequence[Row]) -> list[Row]:
    """A label that several have gets the run or the number that tells them apart."""
    labels = [(row.label, row.version) for row in rows]
    return [
        replace(row, label=f"{row.label} {row.reference.removeprefix('runs:/')[:8] or number}")
        if labels.count((row.label, row.version)) > 1
        else row
        for number, row in enumerate(rows)
    ]
