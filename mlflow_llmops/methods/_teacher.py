"""What a teacher answers to the texts of a split: asked once, kept, and found again by the next run."""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from tqdm.auto import tqdm

from mlflow_llmops.batching.plan import TOKEN_BUDGET, plan_batches
from mlflow_llmops.batching.scorer import pad
from mlflow_llmops.data.texts import Texts
from mlflow_llmops.methods import _session
from mlflow_llmops.methods._losses import REST_AT
from mlflow_llmops.methods._ranks import from_main
from mlflow_llmops.methods._rows import encode
from mlflow_llmops.models.text_model import TextModel

FILE = "answers.safetensors"
TOP_K = 64
"""Of a small model with 4,000 words it leaves about a quarter of the answer to the rest: see benchmarks/README.md."""

Answers = dict[str, list[np.ndarray]]
"""Arrays of each text, by the names that `soft_target_loss` reads."""


def teacher_answers(teacher: TextModel, texts: Texts, top_k: int = TOP_K) -> Answers:
    """All logits (labels,) of a classifier; of a causal model the `top_k` largest of each token and the rest's mass.

    Within a run that keeps things, answers come from its memory: the key holds the teacher's weights, its tokenizer,
    the texts and how they are cut.
    """
    return from_main(lambda: _remembered(teacher, texts, top_k))


def _remembered(teacher: TextModel, texts: Texts, top_k: int) -> Answers:
    session = _session.current()
    key = answers_key(teacher, texts, top_k)
    kept = session.recall(key)
    if kept is not None:
        return _unpacked(load_file(kept / FILE))
    answers = _asked(teacher, texts, top_k)
    with tempfile.TemporaryDirectory(prefix="llmops-answers-") as folder:
        save_file(_packed(answers), Path(folder) / FILE)
        session.keep(key, Path(folder))
    return answers


def answers_key(teacher: TextModel, texts: Texts, top_k: int) -> str:
    """16 hexadecimal digits of SHA-256 over all that the answers depend on."""
    digest = model_digest(teacher)
    kept = f"{top_k} {REST_AT}" if teacher.task == "text-generation" else "all"
    cut = f"{teacher.max_length} {kept}"
    for part in (Texts(texts.texts).fingerprint, cut):
        digest.update(part.encode())
    return digest.hexdigest()[:16]


def model_digest(model: TextModel) -> "hashlib._Hash":
    """SHA-256 of a torch model's weights and tokenizer, for more to be added."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).numpy().tobytes())
    digest.update(model.tokenizer.backend_tokenizer.to_str().encode())
    return digest


def _asked(teacher: TextModel, texts: Texts, top_k: int) -> Answers:
    def reduce(logits: np.ndarray) -> dict[str, np.ndarray]:
        return _top(logits, top_k) if teacher.task == "text-generation" else {"teacher": logits}

    ids = encode(teacher, texts.texts)
    found: dict[str, list[np.ndarray | None]] = {}
    with tqdm(total=len(ids), desc="teacher's answers") as bar:
        for batch in plan_batches(np.array([len(item) for item in ids]), TOKEN_BUDGET[teacher.kind]):
            logits = teacher.run(pad([ids[position] for position in batch], teacher.pad_id))
            for position, row in zip(batch, logits, strict=True):
                row = row[: len(ids[position])] if row.ndim == 2 else row
                for name, array in reduce(row).items():
                    found.setdefault(name, [None] * len(ids))[position] = array
            bar.update(len(batch))
    return {name: [array for array in arrays if array is not None] for name, arrays in found.items()}


def _top(logits: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Of (tokens, words): the k largest (tokens, k), where they are, and the log of the others' summed exponentials at
    each temperature of `REST_AT` (tokens, temperatures)."""
    k = min(k, logits.shape[-1])
    ids = np.argpartition(logits, -k, axis=-1)[:, -k:]
    top = np.take_along_axis(logits, ids, axis=-1)
    others = torch.from_numpy(logits).scatter(-1, torch.from_numpy(ids), float("-inf"))
    rest = torch.stack([(others * inverse).logsumexp(-1) for inverse in REST_AT], dim=-1).numpy()
    return {"teacher_top": top, "teacher_ids": ids.astype(np.int32), "teacher_rest": rest.astype(np.float32)}


def _packed(answers: Answers) -> dict[str, np.ndarray]:
    """Texts differ in length, so their arrays are joined, with the lengths beside; equal ones are stacked."""
    packed: dict[str, np.ndarray] = {}
    for name, arrays in answers.items():
        if name == "teacher":
            packed[name] = np.stack(arrays)
        else:
            packed[name] = np.concatenate(arrays)
            packed["lengths"] = np.array([len(array) for array in arrays])
    return packed


def _unpacked(packed: dict[str, np.ndarray]) -> Answers:
    ends = np.cumsum(packed.pop("lengths", np.array([], dtype=np.int64)))[:-1]
    return {name: list(array) if name == "teacher" else np.split(array, ends) for name, array in packed.items()}
