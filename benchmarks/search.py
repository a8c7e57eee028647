"""How many times as fast as a plain `transformers.pipeline` is the chain that `search` chooses, and what gave it?

The model: all-MiniLM-L6-v2 fine-tuned as by `distillation.py`, in whose `--work` folder it is looked for. The search
runs as a user runs it, with a tracking store in `--work`; `--resume RUN_ID` goes on in one that was stopped. Then all
of these score the same test texts in turn, from strings to labels:

- `pipeline`, fp32, at its best batch size of 1, 8 and 32 (chosen before, on a part of dev);
- `engine`: the same network in torch, fp32, through the token-budget engine;
- `runtime`: the uncut network at full precision in the winner's runtime;
- one row for each part of the chain that was chosen, exported to that runtime where it is a torch model;
- the winner itself.

A row's share is its paired ratio to the row before; the product of the shares is the ratio to the pipeline.

The limits are accuracy (`--drop`) and size (`--of-size`, of the fp32 teacher's artifact). Where no chain keeps them the
table is of the nearest, and a set that fails does not keep the next from its turn.
"""

import argparse
import os
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
from distillation import STUDENT, trained_teacher
from rich.console import Console
from rich.table import Table
from transformers import pipeline

from mlflow_llmops import names
from mlflow_llmops.data.load import load_data
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import GateFailed, LLMOpsError
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.measure.intervals import quantile_interval, share_ratio
from mlflow_llmops.measure.limits import Wanted, distance
from mlflow_llmops.measure.measurement import from_flat
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.measure.size import measure_size
from mlflow_llmops.measure.speed import Score, measure_speed
from mlflow_llmops.methods import table
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.search.kept import workshop
from mlflow_llmops.search.space import Chain, read_space, said
from mlflow_llmops.search.study import DONE
from mlflow_llmops.steps.search import KEPT, search
from mlflow_llmops.tracking.session import WORK, work_folder

BATCH_SIZES = (1, 8, 32)
PROBE = 256
"""Texts of dev that the pipeline's batch size is chosen on."""
SPACE = (
    "none | prune.layers(count={cut}; recovery=none) "
    "> distill.logits({schedule}) | distill.logits(student=layers:{kept}; {schedule}) "
    "> prune.vocabulary > quantize.int8_static"
)
"""What can be ten times as fast in an eighth of the size: the embeddings alone take more than that while they have all
their tokens. The blocks that change least go until a third is left, or every other one is copied."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with clinc150/ and sst2/")
    parser.add_argument(
        "--work", type=Path, default=Path("bench-distillation"), help="where distillation.py keeps its teachers"
    )
    parser.add_argument("--sets", default="clinc150,sst2")
    parser.add_argument("--minutes", type=float, default=60.0, help="the search's time budget, for each set")
    parser.add_argument("--drop", type=float, default=0.035, help="loss of accuracy at the interval's low end")
    parser.add_argument("--of-size", type=float, default=0.125, help="share of the teacher's size that may be left")
    parser.add_argument("--space", help="instead of the one above; auto: the default of search")
    parser.add_argument("--trials", type=int, help="at most")
    parser.add_argument("--resume", help="run id of a stopped search, for one set")
    parser.add_argument("--seconds", type=float, default=120.0, help="for timing the rows of a table in turn")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(f"sqlite:///{(given.work / 'search.db').absolute()}")
    os.environ.setdefault(WORK, str((given.work / "search").absolute()))
    os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", "bench-search")
    for name in given.sets.split(","):
        try:
            run_one(name, given)
        except LLMOpsError as error:
            print(f"{name}: {error}", flush=True)


def run_one(name: str, given: argparse.Namespace) -> None:
    """Search on one set, then time what was found against the pipeline."""
    data = load_data(str(given.data / name))
    teacher = trained_teacher(name, data, given.work)
    folder = given.work / f"search-teacher-{name}"
    teacher.save(folder)
    layers = teacher.network.config.num_hidden_layers
    schedule = "; ".join(f"{option}={value:g}" for option, value in STUDENT[name].items())
    space = given.space or SPACE.format(cut=layers - layers // 3, kept=layers // 2, schedule=schedule)
    console = Console(width=150)
    try:
        found = search(
            str(folder),
            str(given.data / name),
            max_quality_drop=given.drop,
            max_size_mib=given.of_size * mib(teacher, given.work / "search-exported"),
            time_budget_min=given.minutes,
            space=None if space == "auto" else space,
            epochs=STUDENT[name]["epochs"],
            max_trials=given.trials,
            measure_seconds=given.seconds / 4,
            register_as=f"bench-{name}",
            resume=given.resume,
        )
        console.print(*found.shown)
    except GateFailed as refused:
        console.print(*refused.shown, f"{name}: {refused}")
    tried, best = best_chain()
    chain = next(each for each in read_space(tried, teacher.task).chains if said(each) == best)
    console.print(shares(name, teacher, data, chain, given.seconds, given.work / "search-exported"))


def best_chain() -> tuple[str, str]:
    """The space of the last search, and its best chain; where none keeps the limits, the nearest to them.

    Raises GateFailed where no trial was measured.
    """
    (run,) = mlflow.search_runs(
        filter_string="attributes.run_name = 'search'",
        search_all_experiments=True,
        max_results=1,
        output_format="list",
    )
    stored = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/{names.TRIALS}")
    trials = {each["number"]: each for each in stored["trials"] if each["outcome"] == DONE}
    if not trials:
        raise GateFailed("no trial was measured; give more --minutes")
    wanted = Wanted(**stored["wanted"])
    nearest = min(trials, key=lambda number: distance(wanted.missed(from_flat(trials[number]["measured"]))))
    return stored["space"], trials[nearest if stored["best"] is None else stored["best"]]["chain"]


def shares(name: str, teacher: TextModel, data: Splits, chain: Chain, seconds: float, exported: Path) -> Table:
    """The winner against the pipeline, and what each step on the way gave."""
    models = on_the_way(teacher, data, chain, exported / name)
    size, plain = best_pipeline(teacher, data)
    scores: dict[str, Score] = {f"pipeline, batches of {size}": plain}
    scores |= {label: partial(labels_of, model) for label, model in models.items()}
    times = measure_speed(scores, data.test.texts, len, seconds, singles=1)
    right = {
        label: np.array([a == b for a, b in zip(score(data.test.texts), data.test.labels, strict=True)])
        for label, score in scores.items()
    }
    labels, uncut = list(scores), mib(teacher, exported)
    about = f"{len(data.test)} test texts; {hardware_tags()[names.HARDWARE]}; 95 % intervals"
    shown = Table(title=f"{name}: {said(chain)}; {about}")
    for column in (
        "model",
        "texts/s",
        "its share",
        "times the pipeline",
        "accuracy",
        "of the pipeline's",
        "MiB",
        "of its",
    ):
        shown.add_column(column, overflow="fold")
    for before, label in zip([labels[0], *labels], labels, strict=False):
        share = quantile_interval(times[before].batch / times[label].batch)
        ratio = quantile_interval(times[labels[0]].batch / times[label].batch)
        shown.add_row(
            label,
            f"{times[label].texts / np.median(times[label].batch):,.0f}",
            f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]",
            f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]",
            f"{right[label].mean():.4f}",
            str(share_ratio(right[labels[0]], right[label])),
            f"{(size_now := mib(models.get(label, teacher), exported)):.2f}",
            f"{size_now / uncut:.3f}",
        )
    return shown


def on_the_way(teacher: TextModel, data: Splits, chain: Chain, folder: Path) -> dict[str, TextModel]:
    """From the teacher in the engine to the winner. A training changes no shape, so its share should be 1."""
    shop = workshop(teacher, data, 0, work_folder(KEPT), folder / "partial")
    made = [shop.make(chain[: end + 1]).model for end in range(len(chain))]
    runtime = made[-1].kind

    def in_runtime(model: TextModel, label: str) -> TextModel:
        if model.kind == runtime:
            return model
        place = folder / "".join(letter if letter.isalnum() else "-" for letter in label)
        place.mkdir(parents=True, exist_ok=True)
        return table.build(f"export.{runtime}", {}).apply(model, data, place)

    found = {"engine": teacher}
    if runtime != "torch":
        found[f"runtime: {runtime}, fp32"] = in_runtime(teacher, "uncut")
    for part, model in zip(chain, made, strict=True):
        if not part.name.startswith("export."):
            found[str(part)] = in_runtime(model, str(part))
    return found


def best_pipeline(teacher: TextModel, data: Splits) -> tuple[int, Score]:
    """At the batch size that is fastest on texts of dev."""
    run = pipeline("text-classification", model=teacher.network, tokenizer=teacher.tokenizer, device="cpu")

    def score(size: int, texts):
        return [each["label"] for each in run(list(texts), batch_size=size, truncation=True)]

    scores = {str(size): partial(score, size) for size in BATCH_SIZES}
    times = measure_speed(scores, data.dev.texts[:PROBE], len, 10.0, singles=1)
    size = min(BATCH_SIZES, key=lambda each: float(np.median(times[str(each)].batch)))
    return size, scores[str(size)]


def labels_of(model: TextModel, texts) -> list[str]:
    return [model.labels[i] for i in scorer_of(model).logits(texts).argmax(axis=1)]


def mib(model: TextModel, folder: Path) -> float:
    """Of the folder that holds it, a torch model's as plain `from_pretrained` reads it."""
    if model.folder is not None:
        return float(measure_size(model, model.folder)[names.DISK])
    model.save(folder / "sized")
    return float(measure_size(model, folder / "sized")[names.DISK])


if __name__ == "__main__":
    main()
