"""Rule 5: load a logged artifact in a fresh process and look at what it answers, before anyone relies on it.

The process is this file: it imports MLflow, loads the artifact as a pyfunc, scores the texts, and says what that took.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from mlflow_llmops.data.texts import Texts
from mlflow_llmops.errors import ArtifactMismatch, DataError

SCORE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Answers:
    """What a model says: the most likely label of each text and its probability, or what it writes after each, and what
    it cost to find out."""

    labels: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    completions: tuple[str, ...] = ()
    peak_mib: float = 0.0
    """Peak resident memory of the fresh process, with all that it had to import."""
    cold_start_s: float = 0.0
    """From the import to the first answer."""
    texts_fingerprint: str = ""
    """Of the texts that it was asked, as the process that answered saw them."""


def answers_of_fresh_process(artifact: Path, texts: tuple[str, ...]) -> Answers:
    """Load the MLflow artifact in a new Python process and score `texts` there.

    Raises ArtifactMismatch, with the end of that process's output, where it cannot be loaded or scored.
    """
    stored = in_fresh_process("mlflow_llmops.tracking.reload", artifact, texts)
    lists: dict[str, Any] = {name: tuple(stored.pop(name)) for name in ("labels", "scores", "completions")}
    return Answers(**lists, **stored)


def in_fresh_process(module: str, artifact: Path, asked: Any) -> dict[str, Any]:
    """What `python -m module ARTIFACT QUESTION ANSWER` writes into the file ANSWER; `asked` is JSON in QUESTION.

    Raises ArtifactMismatch, with the end of that process's output, where it fails.
    """
    with tempfile.TemporaryDirectory(prefix="llmops-reload-") as folder:
        question, answer = Path(folder) / "texts.json", Path(folder) / "answers.json"
        question.write_text(json.dumps(asked), encoding="utf-8")
        command = [sys.executable, "-W", "ignore", "-m", module]
        with tqdm(total=1, desc="loading the saved model in a fresh process") as bar:
            done = subprocess.run([*command, str(artifact), str(question), str(answer)], capture_output=True, text=True)
            bar.update()
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise ArtifactMismatch(f"the saved model cannot be loaded in a fresh process: {last[:500]}")
        stored: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return stored


def check_asked(answers: Mapping[str, Answers], texts: Sequence[str]) -> None:
    """Raises DataError, naming the model, where one answered other texts than those it is measured on."""
    expected = Texts(tuple(texts)).fingerprint
    for label, each in answers.items():
        if each.texts_fingerprint != expected:
            raise DataError(
                f"{label} was evaluated on other rows ({each.texts_fingerprint or 'unknown'}) than the test split "
                f"({expected}) that its baseline is measured on, so they cannot be compared; ask both again"
            )


def check_same(labels: Sequence[str], probabilities: np.ndarray, reloaded: Answers) -> float:
    """The largest difference of a score between `probabilities` in memory, (texts, labels), and `reloaded`.

    Another label than the most likely one in memory is a tie that rounding turned, if memory holds it as likely.

    Raises ArtifactMismatch where the two do not answer alike.
    """
    number_of = {label: i for i, label in enumerate(labels)}
    unknown = sorted(set(reloaded.labels) - set(number_of))
    if unknown:
        raise ArtifactMismatch(f"the saved model answers with labels it does not have: {', '.join(unknown[:5])}")
    answered = [number_of[label] for label in reloaded.labels]
    chosen = probabilities[np.arange(len(probabilities)), answered]
    apart = float(np.abs(chosen - np.array(reloaded.scores)).max(initial=0.0))
    behind = float((probabilities.max(axis=1, initial=0.0) - chosen).max(initial=0.0))
    if not max(apart, behind) <= SCORE_TOLERANCE:  # a NaN is no match either
        differ = int((probabilities.argmax(axis=1) != answered).sum())
        raise ArtifactMismatch(
            f"the saved model, loaded in a fresh process, gives other outputs: scores differ by up to "
            f"{max(apart, behind):.3g} ({SCORE_TOLERANCE} is allowed), labels of {differ} in {len(answered)} texts; "
            "not registered"
        )
    return apart


def _answer(artifact: str, question: str, answer: str) -> None:
    start = time.perf_counter()
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(artifact)
    texts = json.loads(Path(question).read_text(encoding="utf-8"))
    seen = Texts(tuple(texts)).fingerprint
    model.predict(texts[:1])
    cold_start = time.perf_counter() - start
    said = model.predict(texts)
    answers = Answers(**_columns(said), peak_mib=peak_mib(), cold_start_s=cold_start, texts_fingerprint=seen)
    Path(answer).write_text(json.dumps(asdict(answers)), encoding="utf-8")


def _columns(said: Any) -> dict[str, Any]:
    """A table of labels and scores, or a list of what was written."""
    if isinstance(said, list):
        return {"completions": tuple(map(str, said))}
    return {"labels": tuple(said["label"]), "scores": tuple(float(score) for score in said["score"])}


def peak_mib() -> float:
    """Peak resident memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # not getrusage: a child starts there with the peak of the process that forked it
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    _answer(*sys.argv[1:])
