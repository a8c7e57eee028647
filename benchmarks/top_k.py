"""What is lost when of a causal teacher's answer only the k likeliest words and the rest's mass are kept?

Teacher and students are those of `language.py`, under the same `--work`. Of each k: how far the kept answer is from the
whole one, whether the gradient that it gives a student points where that of the whole one does, what it costs on the
disk, and for some the student's likelihood of the test passages in the end, against the one that whole answers taught.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from language import STUDENT, Trial, against, corpus, trained_student, trained_teacher
from rich.console import Console
from rich.table import Table

from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.measure.intervals import pooled_interval
from mlflow_llmops.methods import table
from mlflow_llmops.methods._losses import Loss, soft_target_loss, top_k_log_probabilities
from mlflow_llmops.methods._rows import IGNORED, Batch, collate, rows_of
from mlflow_llmops.methods._session import Session, session
from mlflow_llmops.methods._teacher import teacher_answers
from mlflow_llmops.methods._train import train
from mlflow_llmops.methods.distill._student import build_student
from mlflow_llmops.models.text_model import TextModel

KEPT = (1, 4, 16, 32, 64, 256)
TRAINED = (4, 32, 64, 256)
TAUS = (2.0, 1.0)
"""That of classifiers, and no softening."""
BATCH, BATCHES = 32, 4
LOGITS = Trial("layers:2", "logits", 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with tinyshakespeare/")
    parser.add_argument("--work", type=Path, default=Path("bench-language"), help="as of language.py")
    parser.add_argument("--texts", type=int, default=2000, help="passages that students learn from")
    given = parser.parse_args()
    data = corpus(given.data, given.work)
    teacher = trained_teacher(data, given.work)
    data = replace(data, train=data.train.pick(range(given.texts)))
    untrained = build_student(teacher, LOGITS.student, LOGITS.seed)
    found = _once(given.work, "all", teacher, data, lambda: _taught_by_whole_answers(teacher, data))
    students = {}
    for k in TRAINED:
        for tau in TAUS:
            with tempfile.TemporaryDirectory() as answers:
                make = partial(trained_student, LOGITS, teacher, data, Path(answers), top_k=k, tau=tau)
                students[k, tau] = _once(given.work, f"{k}-{tau}", teacher, data, make)
    tokens = np.array(found["tokens"])
    words = teacher.network.config.vocab_size
    shown = Table(
        title=f"{words:,} words; {tokens.sum():,.0f} tokens of {len(tokens)} test passages; taught by whole answers at "
        f"tau 2: perplexity {np.exp(-np.sum(found['log']) / tokens.sum()):.1f}"
    )
    for column in ("k", "bytes a token", "tau", "mass kept", "KL", "cosine of gradients", "student, nats a token"):
        shown.add_column(column)
    for k in KEPT:
        cost = _bytes(teacher, data.test, k) / (tokens.sum() + 2 * len(tokens))
        for tau in TAUS:
            mass, divergence = _mass_and_divergence(teacher, data.test, k, tau)
            angle = np.mean([_gradient_angle(teacher, untrained, texts, k, tau) for texts in _batches(data.train)])
            gain = "-"
            if (k, tau) in students:
                gain = str(pooled_interval(np.subtract(students[k, tau]["log"], found["log"]), tokens))
            shown.add_row(str(k), f"{cost:.0f}", f"{tau:g}", f"{mass:.3f}", f"{divergence:.3f}", f"{angle:.3f}", gain)
    shown.add_row("all", f"{4 * words}", "", "1", "0", "1", "0")
    Console(width=150).print(shown)


def _once(
    work: Path, name: str, teacher: TextModel, data: Splits, make: Callable[[], TextModel]
) -> dict[str, list[float]]:
    """What the student that `make` trains says of the test passages; trained once."""
    path = work / "top-k" / f"{name}.json"
    if not path.exists():
        found = against(teacher, make(), data)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
        print(name, f"{np.exp(-np.sum(found['log']) / np.sum(found['tokens'])):.2f}", flush=True)
    kept: dict[str, list[float]] = json.loads(path.read_text())
    return kept


def _taught_by_whole_answers(teacher: TextModel, data: Splits) -> TextModel:
    """As `distill.logits` trains, with a teacher that is asked in every step: its whole answers do not fit a memory."""
    method = table.build("distill.logits", {**STUDENT, "student": LOGITS.student})
    student = build_student(teacher, LOGITS.student, LOGITS.seed)
    loss = _asking(teacher, soft_target_loss(method.alpha, method.beta, 2.0))
    train(student, rows_of(student, data.train), method.schedule(LOGITS.seed), loss)
    return replace(student, fresh=False)


def _asking(teacher: TextModel, loss: Loss) -> Loss:
    def asked(outputs, batch: Batch):
        with torch.no_grad():
            answers = teacher.network(input_ids=batch["clean_ids"], attention_mask=batch["attention_mask"]).logits
        return loss(outputs, {**batch, "teacher": answers})

    return asked


def _batches(texts: Texts) -> Iterator[Texts]:
    for start in range(0, BATCH * BATCHES, BATCH):
        yield texts.pick(range(start, start + BATCH))


def _counted(batch: Batch, name: str) -> torch.Tensor:
    """The answers that a loss looks at: not the last token's, nor those of padding."""
    return batch[name][:, :-1][batch["labels"][:, 1:] != IGNORED]


def _answered(teacher: TextModel, texts: Texts, k: int) -> tuple[Batch, torch.Tensor]:
    """A batch with what is kept of the answers, and the whole ones that are counted, (tokens, words)."""
    batch = collate(rows_of(teacher, texts, teacher_answers(teacher, texts, k)), teacher)
    with torch.no_grad():
        batch["teacher"] = teacher.network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return batch, _counted(batch, "teacher")


def _mass_and_divergence(teacher: TextModel, texts: Texts, k: int, tau: float) -> tuple[float, float]:
    """The probability that the kept words have, and KL from the whole answer to the kept one, whose rest is spread
    evenly: nats, mean over tokens."""
    batch, whole = _answered(teacher, texts.pick(range(200)), k)
    ids, others = _counted(batch, "teacher_ids").long(), whole.shape[-1] - k
    top, rest = top_k_log_probabilities(_counted(batch, "teacher_top"), _counted(batch, "teacher_rest"), others, tau)
    spread = (rest - np.log(others)).unsqueeze(-1).expand(whole.shape)
    full = (whole / tau).log_softmax(-1)
    divergence = (full.exp() * (full - spread.scatter(-1, ids, top))).sum(-1)
    return float(full.exp().gather(-1, ids).sum(-1).mean()), float(divergence.mean())


def _gradient_angle(teacher: TextModel, student: TextModel, texts: Texts, k: int, tau: float) -> float:
    """The cosine between the gradients that kept and whole answers give the student's weights."""
    batch, _ = _answered(teacher, texts, k)
    kept = {name: value for name, value in batch.items() if name != "teacher"}
    whole = {name: value for name, value in batch.items() if not name.startswith("teacher_")}
    one, other = (_gradient(student, each, tau) for each in (kept, whole))
    return float(torch.cosine_similarity(one, other, dim=0))


def _gradient(student: TextModel, batch: Batch, tau: float) -> torch.Tensor:
    net = student.network
    net.zero_grad()
    outputs = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    soft_target_loss(0.0, 1.0, tau)(outputs, batch)["teacher"][1].backward()
    return torch.cat([parameter.grad.flatten() for parameter in net.parameters() if parameter.grad is not None])


def _bytes(teacher: TextModel, texts: Texts, k: int) -> int:
    sizes = []

    def weigh(key: str, folder: Path) -> None:
        sizes.extend(file.stat().st_size for file in folder.iterdir())

    with session(Session(keep=weigh)):
        teacher_answers(teacher, texts, k)
    return sum(sizes)


if __name__ == "__main__":
    main()
