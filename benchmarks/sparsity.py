"""Which way of making weights zero costs a causal model least, without any training after?

Models: the shape of `builtin:decoder` (4 layers, 128 wide, 4,000 pieces), trained by our own `finetune` on all passages
of tinyshakespeare, one a seed (`benchmarks/language.py`). Each is pruned by every method at every sparsity; calibration
texts are drawn by the seed. What each says of the test passages is kept in `--work`, so that a stopped benchmark goes
on where it was. Intervals are over passages, each with its mean over the seeds (bootstrap).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from language import against, corpus, trained_teacher
from rich.console import Console
from rich.table import Table

from mlflow_llmops.measure.intervals import pooled_interval
from mlflow_llmops.methods import table

SPARSITIES = {
    "30 %": {"fraction": 0.3},
    "50 %": {"fraction": 0.5},
    "2:4": {"pattern": "2:4"},
    "70 %": {"fraction": 0.7},
}
METHODS = ("magnitude", "wanda", "sparsegpt")
CLAIMS = (("50 %", "wanda", "magnitude"), ("2:4", "sparsegpt", "wanda"))

Found = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with tinyshakespeare/")
    parser.add_argument("--work", type=Path, default=Path("bench-language"), help="teachers and trials are kept here")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--passages", type=int, default=None, help="of the train split, for a quick look; default: all")
    given = parser.parse_args()
    data = corpus(given.data, given.work)
    if given.passages:
        data = type(data)(data.train.pick(range(given.passages)), data.dev, data.test, data.source)
    whole: list[Found] = []
    trials: dict[tuple[str, str], list[Found]] = {(at, method): [] for at in SPARSITIES for method in METHODS}
    for seed in range(given.seeds):
        teacher = trained_teacher(data, given.work, seed)
        whole.append(against(teacher, teacher, data))
        for (at, method), found in trials.items():
            path = given.work / "sparsity" / f"{method}-{at.replace(' ', '').replace(':', '-')}-{seed}.json"
            if not path.exists():
                start = time.perf_counter()
                options = {**SPARSITIES[at], "recovery": "none"}
                made = table.build(f"prune.{method}", options).apply(teacher, data, given.work, seed)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(against(teacher, made, data)))
                print(method, at, seed, f"{time.perf_counter() - start:.0f} s", flush=True)
            found.append(json.loads(path.read_text()))
    Console(width=150).print(_table(whole, trials))
    for at, method, rival in CLAIMS:
        change = _change(trials[at, method], trials[at, rival])
        print(f"{method} minus {rival} at {at}: {change} nats per token")


def _table(whole: list[Found], trials: dict[tuple[str, str], list[Found]]) -> Table:
    shown = Table(
        title=f"tinyshakespeare, {len(whole[0]['tokens'])} passages in test, {len(whole)} seeds; perplexity of the "
        f"whole models {_perplexities(whole)}; no training after; 95 % intervals"
    )
    for column in (
        "zeros",
        "method",
        "perplexity (lowest, highest seed)",
        "nats a token, minus magnitude",
        "minus wanda",
    ):
        shown.add_column(column)
    for (at, method), found in trials.items():
        changes = [_change(found, trials[at, rival]) if method != rival else "-" for rival in ("magnitude", "wanda")]
        shown.add_row(at, method, _perplexities(found), *changes)
    return shown


def _change(trials: list[Found], rivals: list[Found]) -> str:
    """In log-likelihood: above 0 is better."""
    differences = [np.subtract(a["log"], b["log"]) for a, b in zip(trials, rivals, strict=True)]
    interval = pooled_interval(np.mean(differences, axis=0), np.array(trials[0]["tokens"]))
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _perplexities(trials: list[Found]) -> str:
    each = [float(np.exp(-np.sum(found["log"]) / np.sum(found["tokens"]))) for found in trials]
    return f"{np.mean(each):.1f} ({min(each):.1f}, {max(each):.1f})"


if __name__ == "__main__":
    main()
