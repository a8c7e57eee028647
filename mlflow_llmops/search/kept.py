"""What the parts of chains made, kept by a fingerprint of all that it depends on: nothing is made twice."""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

import mlflow_llmops
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.methods import _session
from mlflow_llmops.methods._teacher import model_digest
from mlflow_llmops.models.load import load
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.search.space import Chain, Part

DONE = "done.json"
MODEL = "model"
ROOMS = ("batching", "data", "engines", "methods", "models")
LIBRARIES = ("torch", "transformers", "onnxruntime", "openvino", "nncf", "peft")


@dataclass(frozen=True)
class Made:
    """A model, and the seconds of the parts that had to be made for it now."""

    model: TextModel
    folder: Path | None
    seconds: Mapping[Part, float]


@dataclass(frozen=True)
class Workshop:
    """Makes chains out of `teacher`. `kept` is shared by all searches, `partial` is this one's: what is half done."""

    teacher: TextModel
    data: Splits
    seed: int
    kept: Path
    partial: Path
    weights: str
    """The teacher's fingerprint, taken once."""

    def key(self, chain: Chain) -> str:
        """Of weights, data, parameters, seed and code. The test split is no part: nothing that is made has seen it."""
        parts = [[part.name, part.options] for part in chain]
        seen = [self.weights, self.teacher.task, self.data.train.fingerprint, self.data.dev.fingerprint, self.seed]
        return hashlib.sha256(json.dumps([code(), seen, parts]).encode()).hexdigest()[:24]

    def missing(self, chain: Chain) -> list[Part]:
        """The parts that are not kept yet."""
        return [part for end, part in enumerate(chain, 1) if not (self._folder(chain[:end]) / DONE).exists()]

    def make(self, chain: Chain) -> Made:
        """Apply the parts that are not kept, one after the other, and keep what each made."""
        if not chain:
            return Made(self.teacher, None, {})
        folder = self._folder(chain)
        seconds: dict[Part, float] = {}
        if not (folder / DONE).exists():
            before = self.make(chain[:-1])
            start = time.perf_counter()
            self._keep(chain, before)
            seconds = {**before.seconds, chain[-1]: time.perf_counter() - start}
        (folder / DONE).touch()  # its last use, for who wants room on the disk
        return Made(load(str(folder / MODEL), self.teacher.task), folder / MODEL, seconds)

    def _keep(self, chain: Chain, before: Made) -> None:
        """Made in a folder of this search, and moved when all of it is there: a kill leaves nothing that looks done."""
        key, part = self.key(chain), chain[-1]
        work, target = self.partial / key, self._folder(chain)
        shutil.rmtree(work / MODEL, ignore_errors=True)
        (work / MODEL).mkdir(parents=True)
        model, method = before.model, part.method
        if part.teaches:
            model, method = self.teacher, replace(method, student=str(before.folder))  # type: ignore[call-arg]
        method.check(model, self.data)
        torch.manual_seed(self.seed)
        with _session.session(_session.under(part.name, work / "checkpoints")):
            made = method.apply(model, self.data, work / MODEL, self.seed)
        if made.folder is None:
            made.save(work / MODEL)
        shutil.rmtree(work / "checkpoints", ignore_errors=True)
        (work / DONE).write_text(json.dumps([str(each) for each in chain]), encoding="utf-8")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            work.replace(target)
        except OSError:
            if not (target / DONE).exists():  # unless another search was faster
                raise
            shutil.rmtree(work)

    def _folder(self, chain: Chain) -> Path:
        return self.kept / self.key(chain)


def workshop(teacher: TextModel, data: Splits, seed: int, kept: Path, partial: Path) -> Workshop:
    """With the teacher's fingerprint."""
    return Workshop(teacher, data, seed, kept, partial, f"{model_digest(teacher).hexdigest()} {teacher.max_length}")


@cache
def code() -> str:
    """The version of what makes models: the sources of our own rooms, and the libraries beneath them."""
    digest = hashlib.sha256()
    root = Path(mlflow_llmops.__path__[0])
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library} {version(library)}\n".encode())
    return digest.hexdigest()[:16]
