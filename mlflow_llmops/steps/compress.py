"""The verbs that make a model out of a model: finetune, distill, prune, factorize, quantize, export."""

from collections.abc import Mapping
from typing import Annotated, Any

from rich.text import Text

from mlflow_llmops import names
from mlflow_llmops.data.load import load_data
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ConfigError, GateFailed
from mlflow_llmops.methods import table
from mlflow_llmops.methods._launch import is_main
from mlflow_llmops.methods.method import Method
from mlflow_llmops.models.tasks import task_named
from mlflow_llmops.registry.versions import check_name
from mlflow_llmops.steps._chain_link import Link, apply_method, check_bound, registered
from mlflow_llmops.steps._hardware import warn
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
from mlflow_llmops.steps._part import check_processes, take_part
from mlflow_llmops.tracking.loaded import load_model
from mlflow_llmops.tracking.references import check_there
from mlflow_llmops.tracking.report import table as shown_table
from mlflow_llmops.tracking.run import start_run


def compress(
    verb: str,
    method: Annotated[str, "the method of this verb"],
    model: Model,
    data: Data = DOCSTRINGS,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    eval_data: EvalData = None,
    overlap: Overlap = "drop",
    task: Annotated[str, "text-classification or text-generation"] = "text-classification",
    register_as: RegisterAs = None,
    measure_seconds: MeasureSeconds = 10.0,
    speed_grid: Annotated[
        bool | None,
        "measure 1, 8 and 32 texts of 16, 64 and 256 tokens as well, for measure_seconds more, up to six times that "
        "where the big ones need it; "
        "auto: for classifiers that are to become smaller or faster",
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    resume: Annotated[str | None, "run id of an interrupted run of the same verb, to go on in it; auto: none"] = None,
    seed: Seed = 0,
    options: Mapping[str, Any] | None = None,
) -> Outcome:
    """Apply one method of `verb`, measured against `model` in the same run; `options` are the method's fields."""
    name = method if "." in method else f"{verb}.{method}"
    if not is_main():
        take_part(name, options or {}, seed)
        return Outcome("")
    tags = {names.VERB: verb, names.METHOD: name, names.TASK: task}
    params = {
        f"{verb}.model": model,
        f"{verb}.seed": seed,
        f"{verb}.register_as": register_as,
        **data_params(verb, data, text_column, label_column, eval_data, overlap),
    }
    with start_run(name, tags, params, resume) as run:
        built = table.build(name, options or {})  # a typing mistake is told before any data is read
        warn(name, built)
        check_processes(name, built)
        if register_as is not None:
            check_name(register_as)
            if not built.artifact:
                raise ConfigError(
                    f"register_as={register_as}: {name} measures a runtime and makes no model of its own; leave it out"
                )
        labelled = task_named(task).labelled
        _check_task(name, built, task)
        grid = _wants_grid(speed_grid, built, labelled)
        check_there(model)  # before the data, which may take long to read
        splits = load_data(data, text_column, label_column if labelled else None, eval_data, overlap)
        source = load_model(model, task, splits if built.new_head else None, trust_remote_code=trust_remote_code)
        link = apply_method(
            name,
            options or {},
            source,
            splits,
            run.info.run_id,
            name,
            seed,
            measure_seconds,
            grid_seconds=measure_seconds if grid else 0.0,
        )
        if register_as is not None:
            try:
                check_bound(link, register_as)
            except GateFailed as refused:
                refused.shown = shown_link(link, splits)
                raise
            link = registered(link, register_as)
    return Outcome(run.info.run_id, shown_link(link, splits), {"link": link})


def _check_task(name: str, method: Method, task: str) -> None:
    """What can be known before any data is read."""
    if task not in method.tasks:
        raise ConfigError(f"task={task}: {name} is for {' and '.join(method.tasks)}; choose another method or task")


def _wants_grid(asked: bool | None, method: Method, labelled: bool) -> bool:
    if asked and not labelled:
        raise ConfigError(
            "speed_grid=True: batch sizes and lengths are measured for text-classification only; leave it at auto"
        )
    return method.compresses and labelled if asked is None else asked


def shown_link(link: Link, data: Splits) -> tuple[Any, ...]:
    """What the terminal says of one method."""
    said = [f"{link.name}: {link.verdict}", f"model: {link.result.reference}"]
    if link.version:
        said.append(f"registered as version {link.version}")
    said += said_of_overlap(data)
    return (shown_table(link.rows), Text("\n".join(said)))
