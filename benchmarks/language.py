"""Which way of distilling helps a causal model, and what does it give over the same student on the texts alone?

Teacher: the shape of `builtin:decoder` (4 layers, 128 wide, 4,000 pieces), trained by our own `finetune` on all
passages of tinyshakespeare. Students keep some of its layers and learn from the first `--texts` of them, each method
for as many epochs. What each says of the test passages is kept in `--work`, so that a stopped benchmark goes on where
it was, and the table is printed from all that is there. Intervals of differences are over passages, each with its mean
over the seeds (bootstrap).
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from mlflow_llmops.data.load import load_data
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.measure.intervals import pooled_interval
from mlflow_llmops.measure.likelihood import likelihoods
from mlflow_llmops.methods import table
from mlflow_llmops.methods._session import Session, session
from mlflow_llmops.methods.distill._student import build_student
from mlflow_llmops.models.load import load
from mlflow_llmops.models.scratch_decoder import small_decoder
from mlflow_llmops.models.text_model import TextModel

CHARACTERS = 180
"""Of a passage, so that it fits the 64 tokens of the model with hardly any cut."""
TEACHER = {"epochs": 5}
STUDENT = {"epochs": 3, "token_dropout": 0.0}
TEXTS_ALONE = "texts alone"
METHODS = {
    TEXTS_ALONE: ("finetune.full", {}),
    "logits": ("distill.logits", {}),
    "sequence": ("distill.sequence", {}),
    "sequence, sampled": ("distill.sequence", {"temperature": 1.0}),
    "on_policy": ("distill.on_policy", {}),
    "on_policy, own samples never": ("distill.on_policy", {"on_policy": 0.0}),
}


@dataclass(frozen=True)
class Trial:
    """One student, trained once."""

    student: str
    method: str
    seed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with tinyshakespeare/")
    parser.add_argument("--work", type=Path, default=Path("bench-language"), help="teacher and trials are kept here")
    parser.add_argument("--texts", type=int, default=2000, help="passages that students learn from")
    parser.add_argument("--students", default="layers:2")
    parser.add_argument("--methods", default=";".join(METHODS), help="separated by semicolons")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    data = corpus(given.data, given.work)
    teacher = trained_teacher(data, given.work)
    shown = replace(data, train=data.train.pick(range(given.texts)))
    for seed in range(given.seeds):
        for student in given.students.split(","):
            for method in given.methods.split(";"):
                trial = Trial(student, method, seed)
                if not _file(given.work, trial).exists():
                    _keep(trial, teacher, shown, given.work)
    Console(width=150).print(_table(teacher, shown, given.work))


def corpus(folder: Path, work: Path) -> Splits:
    """The corpus as passages, through the files that our own loader reads."""
    files = work / "passages"
    if not files.exists():
        files.mkdir(parents=True)
        for split in ("train", "test"):
            text = (folder / "tinyshakespeare" / f"{split}.txt").read_text(encoding="utf-8")
            frame = pd.DataFrame({"text": list(dict.fromkeys(_passages(text)))})
            frame.to_json(files / f"{split}.jsonl", orient="records", lines=True)
    return load_data(str(files), label_column=None)


def trained_teacher(data: Splits, work: Path, seed: int = 0) -> TextModel:
    """Trained by `finetune`, once a seed."""
    named = f"teacher-{seed}" if seed else "teacher"
    folder = work / named
    if not folder.exists():
        torch.manual_seed(seed)
        with session(Session(work=work / f"training-{named}")):
            table.build("finetune.full", TEACHER).apply(small_decoder(data.train), data, work, seed).save(folder)
    return load(str(folder), "text-generation")


def trained_student(trial: Trial, teacher: TextModel, data: Splits, work: Path, **more: object) -> TextModel:
    """A student of the method; on the texts alone it is the same copy of the teacher's layers, finetuned."""
    method, options = METHODS[trial.method]
    answers = work / "answers"
    offered = Session(
        recall=lambda key: answers / key if (answers / key).exists() else None,
        keep=lambda key, folder: copytree(folder, answers / key, dirs_exist_ok=True) and None,
    )
    alone = trial.method == TEXTS_ALONE
    start = build_student(teacher, trial.student, trial.seed) if alone else teacher
    if not alone:
        more = {"student": trial.student, **more}
    with session(offered):
        return table.build(method, {**STUDENT, **options, **more}).apply(start, data, work, trial.seed)


def against(teacher: TextModel, model: TextModel, data: Splits) -> dict[str, list[float]]:
    """Of each test passage: the sum of log-likelihoods, the tokens, and those that are the teacher's likeliest too."""
    theirs, ours = (likelihoods(each, data.test.texts) for each in (teacher, model))
    return {
        "log": [float(row.sum()) for row in ours.log],
        "tokens": [float(count) for count in ours.counts],
        "same": [float((a == b).sum()) for a, b in zip(theirs.best, ours.best, strict=True)],
    }


def _passages(text: str) -> Iterator[str]:
    """Whole lines, up to `CHARACTERS`."""
    passage = ""
    for line in text.splitlines():
        if passage and len(passage) + len(line) + 1 > CHARACTERS:
            yield passage
            passage = ""
        passage = f"{passage}\n{line}".strip("\n")
    if passage:
        yield passage


def _file(work: Path, trial: Trial) -> Path:
    said = f"{trial.student} {trial.method} {trial.seed}".replace(",", "").replace(":", "")
    return work / "trials" / f"{said.replace(' ', '-')}.json"


def _keep(trial: Trial, teacher: TextModel, data: Splits, work: Path) -> None:
    start = time.perf_counter()
    model = trained_student(trial, teacher, data, work)
    seconds = time.perf_counter() - start
    found = {**vars(trial), "seconds": seconds, **against(teacher, model, data)}
    path = _file(work, trial)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    print(trial, f"{np.exp(-np.sum(found['log']) / np.sum(found['tokens'])):.2f}", f"{seconds:.0f} s", flush=True)


def _table(teacher: TextModel, data: Splits, work: Path) -> Table:
    own = against(teacher, teacher, data)
    cut = against(teacher, build_student(teacher, "layers:2", 0), data)
    counts = np.array(own["tokens"])
    shown = Table(
        title=f"tinyshakespeare, {len(data.train)} passages, {len(counts)} in test; teacher's perplexity "
        f"{_perplexity(own):.1f}, of its layers:2 before training {_perplexity(cut):.0f}; 95 % intervals"
    )
    minus = f"minus {TEXTS_ALONE}"
    for column in (
        *("student", "method", "seeds", "perplexity (lowest, highest seed)", f"nats per token, {minus}"),
        *("agreement", minus, "seconds"),
    ):
        shown.add_column(column)
    trials: dict[tuple[str, str], dict[int, dict]] = {}
    for path in sorted((work / "trials").glob("*.json")):
        trial = json.loads(path.read_text())
        trials.setdefault((trial["student"], trial["method"]), {})[trial["seed"]] = trial
    for (student, method), by_seed in sorted(trials.items()):
        baseline = trials.get((student, TEXTS_ALONE), {})
        shared = sorted(by_seed.keys() & baseline.keys()) if method != TEXTS_ALONE else []
        gains = ["-", "-"]
        if shared:
            gains = [_gain([by_seed[s] for s in shared], [baseline[s] for s in shared], n) for n in ("log", "same")]
        each = [_perplexity(trial) for trial in by_seed.values()]
        same = np.sum([trial["same"] for trial in by_seed.values()]) / counts.sum() / len(by_seed)
        seconds = np.mean([trial["seconds"] for trial in by_seed.values()])
        spread = f"{np.mean(each):.1f} ({min(each):.1f}, {max(each):.1f})"
        shown.add_row(student, method, str(len(each)), spread, gains[0], f"{same:.4f}", gains[1], f"{seconds:.0f}")
    return shown


def _gain(trials: list[dict], baseline: list[dict], name: str) -> str:
    differences = np.mean([np.subtract(a[name], b[name]) for a, b in zip(trials, baseline, strict=True)], axis=0)
    interval = pooled_interval(differences, np.array(trials[0]["tokens"]))
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _perplexity(found: dict) -> float:
    return float(np.exp(-np.sum(found["log"]) / np.sum(found["tokens"])))


if __name__ == "__main__":
    main()
