"""What does each way of cutting cost, what does it give, and which importance finds the heads that can go?

The model: all-MiniLM-L6-v2 fine-tuned as by `distillation.py`, in whose `--work` folder it is looked for. Its parts:

- `claim`: half of the feed-forward units and a third of the heads, recovered: speed beside the uncut model in the same
  runtime, accuracy beside its own. Heads go with channels (`width`) or alone, as a graph (`export`).
- `curve`: five fractions of each of `--cuts`, as a table and as a picture in `--work`. `neurons+heads` cuts both alike.
- `vocabulary`: without the tokens that the train split never uses; size, accuracy, and texts that are cut finer.
- `attention`: through landmarks, by the length of a text.
- `importance`: heads cut by each importance and by chance, without recovery and with all channels kept, so that
  nothing else differs; the interval of a difference is over texts, each with its mean over the seeds (bootstrap).

What was cut is kept in `--work`, so that a stopped benchmark goes on where it was; all models of a table are timed in
turn.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from shutil import copytree, rmtree
from tempfile import TemporaryDirectory

import numpy as np
from distillation import STUDENT, trained_teacher
from rich.console import Console
from rich.table import Table

from mlflow_llmops import names
from mlflow_llmops.data.load import load_data
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.measure.break_even import LENGTHS, measure_break_even
from mlflow_llmops.measure.intervals import (
    quantile_interval,
    share_change,
    share_interval,
    share_ratio,
    statistic_interval,
)
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.measure.pieces import finer_texts
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.measure.size import measure_size
from mlflow_llmops.measure.speed import measure_speed
from mlflow_llmops.methods import table
from mlflow_llmops.methods._session import Session, session
from mlflow_llmops.methods.prune.heads import Heads
from mlflow_llmops.models.load import load
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.tracking.fraction_curve import Point, curve_png

FRACTIONS = {
    "neurons": (1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6),
    "heads": (1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6),
    "layers": (1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6),
    "width": (1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6),
    "neurons+heads": (1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6),
}
IMPORTANCES = ("taylor", "activation", "magnitude", "random")
UNCUT = "uncut"


Chain = tuple[tuple[str, dict], ...]
"""Pruning methods one after the other, each with its options."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with clinc150/ and sst2/")
    parser.add_argument(
        "--work", type=Path, default=Path("bench-distillation"), help="where distillation.py keeps them"
    )
    parser.add_argument("--set", default="clinc150")
    parser.add_argument("--parts", default="claim,curve,vocabulary,attention,importance")
    parser.add_argument("--cuts", default="neurons,heads,neurons+heads", help=f"of {', '.join(FRACTIONS)}")
    parser.add_argument("--points", type=int, default=5, help="fractions of the curve")
    parser.add_argument("--epochs", type=float, default=3.0, help="of recovery after each method of a chain")
    parser.add_argument("--seeds", type=int, default=3, help="of the importance part")
    parser.add_argument("--texts", type=int, default=0, help="train texts to recover with; 0 for all")
    parser.add_argument("--seconds", type=float, default=120.0, help="for timing what one table compares")
    given = parser.parse_args()
    data = load_data(str(given.data / given.set))
    teacher = trained_teacher(given.set, data, given.work)
    picked = np.random.default_rng(0).permutation(len(data.train))[: given.texts or None]
    train = data.train.pick([int(i) for i in picked]) if given.texts else data.train
    bench = Bench(given.set, teacher, replace(data, train=train), given.work / "pruning", given.epochs, given.seconds)
    console = Console(width=150)
    for part in given.parts.split(","):
        if part == "claim":
            console.print(*bench.claim())
        elif part == "curve":
            console.print(bench.curve(given.cuts.split(","), given.points))
        elif part == "vocabulary":
            console.print(bench.vocabulary())
        elif part == "attention":
            console.print(bench.attention())
        else:
            console.print(bench.importance(given.seeds))


@dataclass(frozen=True)
class Bench:
    """A teacher and its data, and where what was cut is kept."""

    name: str
    teacher: TextModel
    data: Splits
    work: Path
    epochs: float
    seconds: float

    def claim(self) -> list[Table]:
        """Beside the uncut model in torch, and in OpenVINO where the result is a graph."""
        half = ("prune.neurons", {**self._recovery(), "fraction": 0.5})
        heads = {**self._recovery(), "fraction": 1 / 3}
        width = self.made((half, ("prune.heads", heads)))
        graph = self.made((half, ("prune.heads", {**heads, "fit": "export"})))
        exported = self.made((("export.openvino", {}),))
        in_torch = {UNCUT: self.teacher, "half of the units, a third of the heads with channels": width}
        in_openvino = {UNCUT: exported, "half of the units, a third of the heads alone": graph}
        return [self._table("claim, torch", in_torch), self._table("claim, OpenVINO", in_openvino)]

    def curve(self, cuts: list[str], count: int) -> Table:
        """All fractions of all cuts in turn; the picture lies beside what was cut."""
        models: dict[str, TextModel] = {UNCUT: self.teacher}
        points: dict[str, tuple[str, float]] = {}
        for cut in cuts:
            for fraction in FRACTIONS[cut][:count]:
                chain = tuple((f"prune.{name}", {**self._recovery(), "fraction": fraction}) for name in cut.split("+"))
                label = f"{cut} {fraction:.2f}"
                models[label] = self.made(chain)
                points[label] = (cut, fraction)
        speeds, right = self._speeds(models), self._right(models)
        drawn = [
            Point(fraction, share_interval(right[label]), speeds[label], cut)
            for label, (cut, fraction) in points.items()
        ]
        figure = curve_png(drawn, f"accuracy on {self.name}'s test split", float(right[UNCUT].mean()))
        self.work.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.work / f"curve-{self.name}.png")
        return self._shown("curve", models, speeds, right)

    def vocabulary(self) -> Table:
        """Without the tokens that the train split never uses; nothing is trained."""
        models = {UNCUT: self.teacher, "tokens of the train split": self.made((("prune.vocabulary", {}),))}
        right = self._right(models)
        shown = Table(title=f"{self.name}, vocabulary: {len(self.data.test)} test texts; 95 % intervals")
        for column in ("model", "tokens", "MiB", "accuracy", "of the uncut", "minus the uncut", "texts cut finer"):
            shown.add_column(column)
        for label, model in models.items():
            with TemporaryDirectory() as folder:
                model.save(Path(folder))
                size = measure_size(model, Path(folder))[names.DISK]
            kept, change = share_ratio(right[UNCUT], right[label]), share_change(right[UNCUT], right[label])
            finer = finer_texts(self.teacher, model, self.data.test.texts)[names.FINER_TEXTS]
            cells = (kept, change, finer)
            shown.add_row(
                label, f"{len(model.tokenizer):,}", f"{size:.2f}", f"{right[label].mean():.4f}", *map(str, cells)
            )
        return shown

    def attention(self) -> Table:
        """Landmarks against softmax attention by length, one text at a time, in OpenVINO."""
        with TemporaryDirectory() as folder:
            rivals = table.build("factorize.attention", {"recovery": "none"}).rivals(
                self.teacher, Path(folder), max(LENGTHS)
            )
            found = measure_break_even(rivals, self.data.test.texts, self.teacher.max_length, self.seconds)
        shown = Table(title=f"{self.name}, attention through landmarks: {found.said()}")
        for column in ("tokens", "times as fast"):
            shown.add_column(column)
        for tokens, ratio in found.ratios.items():
            shown.add_row(f"{tokens:,}", str(ratio))
        return shown

    def importance(self, seeds: int) -> Table:
        """Accuracy by importance, and minus that of heads that went by chance."""
        shown = Table(
            title=f"{self.name}: heads cut without recovery, all channels kept, {seeds} seeds; 95 % intervals"
        )
        for column in ("fraction", "importance", "accuracy (lowest, highest seed)", "minus random", "minus magnitude"):
            shown.add_column(column)
        for fraction in (1 / 6, 1 / 3, 1 / 2):
            hits = {
                importance: np.stack([self._without_heads(fraction, importance, seed) for seed in range(seeds)])
                for importance in IMPORTANCES
            }
            for importance, right in hits.items():
                each = right.mean(axis=1)
                shown.add_row(
                    f"{fraction:.2f}",
                    importance,
                    f"{each.mean():.4f} ({each.min():.4f}, {each.max():.4f})",
                    *(_minus(right, hits[rival]) if rival != importance else "" for rival in ("random", "magnitude")),
                )
        return shown

    def made(self, chain: Chain) -> TextModel:
        """The teacher after these methods: applied now, or found where an earlier run, or a longer chain, left it."""
        if not chain:
            return self.teacher
        about = [self.name, len(self.data.train), chain]
        folder = self.work / "-".join(
            [*(method for method, _ in chain), sha256(json.dumps(about).encode()).hexdigest()[:8]]
        )
        if not (folder / "done.json").exists():
            rmtree(folder, ignore_errors=True)
            (folder / "model").mkdir(parents=True)
            (name, options), before = chain[-1], self.made(chain[:-1])
            with session(self._memory()):
                model = table.build(name, options).apply(before, self.data, folder / "model")
            if model.kind == "torch":
                model.save(folder / "model")
            (folder / "done.json").write_text(json.dumps(about))
        return load(str(folder / "model"))

    def _without_heads(self, fraction: float, importance: str, seed: int) -> np.ndarray:
        method = Heads(fraction=fraction, importance=importance, fit="export", recovery="none")
        with session(self._memory()):
            return self._right({"": method.pruned(self.teacher, self.data, seed)})[""]

    def _recovery(self) -> dict:
        return {"epochs": self.epochs, "learning_rate": STUDENT[self.name]["learning_rate"]}

    def _memory(self) -> Session:
        kept = self.work / "kept"
        return Session(
            recall=lambda key: kept / key if (kept / key).exists() else None,
            keep=lambda key, folder: copytree(folder, kept / key) and None,
        )

    def _table(self, title: str, models: Mapping[str, TextModel]) -> Table:
        return self._shown(title, models, self._speeds(models), self._right(models))

    def _speeds(self, models: Mapping[str, TextModel]) -> dict[str, Estimate]:
        scorers = {label: scorer_of(model).logits for label, model in models.items()}
        times = measure_speed(scorers, self.data.test.texts, len, self.seconds, singles=1)
        return {label: quantile_interval(times[UNCUT].batch / each.batch) for label, each in times.items()}

    def _right(self, models: Mapping[str, TextModel]) -> dict[str, np.ndarray]:
        truth = self.data.test.labels
        answers = {label: scorer_of(model).logits(self.data.test.texts).argmax(1) for label, model in models.items()}
        labels = self.teacher.labels
        return {
            name: np.array([labels[i] == label for i, label in zip(found, truth, strict=True)])
            for name, found in answers.items()
        }

    def _shown(
        self,
        title: str,
        models: Mapping[str, TextModel],
        speeds: Mapping[str, Estimate],
        right: Mapping[str, np.ndarray],
    ) -> Table:
        about = f"{self.epochs:g} epochs of {len(self.data.train)} texts, {len(self.data.test)} test texts"
        shown = Table(title=f"{self.name}, {title}: {about}; {hardware_tags()[names.HARDWARE]}; 95 % intervals")
        for column in (
            "model",
            "times as fast",
            "accuracy",
            "of the uncut",
            "minus the uncut",
            "parameters M",
        ):
            shown.add_column(column)
        for label, model in models.items():
            kept, change = share_ratio(right[UNCUT], right[label]), share_change(right[UNCUT], right[label])
            size = model.network.num_parameters() if model.kind == "torch" else model.artifact.parameters
            shown.add_row(
                label,
                f"{speeds[label].value:.2f} [{speeds[label].low:.2f}, {speeds[label].high:.2f}]",
                f"{right[label].mean():.4f}",
                f"{kept.value:.2%} [{kept.low:.2%}, {kept.high:.2%}]",
                f"{change.value:+.4f} [{change.low:+.4f}, {change.high:+.4f}]",
                f"{size / 1e6:.2f}",
            )
        return shown


def _minus(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Of (seeds, texts) each."""
    per_text = (ours.astype(float) - theirs).mean(axis=0)
    found = statistic_interval(lambda picked: float(per_text[picked].mean()), len(per_text))
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


if __name__ == "__main__":
    main()
