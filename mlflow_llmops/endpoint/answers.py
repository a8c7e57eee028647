"""Paid answers on disk: each is appended as it arrives, and found again by every later run."""

import errno
import json
import os
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from re import sub
from urllib.parse import urlsplit

ANSWERS = "LLMOPS_ANSWERS"
"""The variable that moves the folder of the answers."""


@dataclass(frozen=True)
class Answer:
    """What an endpoint gave for one request, and its price; `answer` is None where it gave none, `error` says why."""

    key: str
    answer: str | None
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    """The endpoint did not say how many tokens it counted."""
    seconds: float = 0.0
    at: str = ""
    error: str = ""


class AnswersFile:
    """An append-only file with one JSON object a line, that several processes may write and any of them may die in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers: dict[str, Answer] = {}
        self._read = 0
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Answer:
        return self._answers[key]

    def refresh(self) -> None:
        """Read what this and other processes have written since; a request without an answer may be asked again."""
        if not self.path.exists() or self.path.stat().st_size == self._read:
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new.rfind(b"\n") + 1
        self._read += whole
        for line in new[:whole].splitlines():
            answer = _read_line(line)
            if answer is not None and answer.answer is not None:
                self._answers.setdefault(answer.key, answer)

    def append(self, answer: Answer) -> None:
        """On return it is on the disk. Raises OSError where there is no room."""
        # a line that a killed process left without its end must not swallow this one
        line = b"\n" + json.dumps(asdict(answer)).encode() + b"\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if os.write(file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(file)
        finally:
            os.close(file)


def answers_path(url: str, model: str) -> Path:
    """The file of one endpoint's model, in a folder that outlives every run."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get(ANSWERS) or cache / "mlflow-llmops" / "answers")
    readable = sub(r"[^A-Za-z0-9.]+", "-", f"{urlsplit(url).netloc}-{model}")[:80]
    return folder / f"{readable}-{sha256(f'{url} {model}'.encode()).hexdigest()[:8]}.jsonl"


def _read_line(line: bytes) -> Answer | None:
    """None for an empty line, half of one, or one that is no answer."""
    try:
        found = json.loads(line)
        return Answer(**{field.name: found[field.name] for field in fields(Answer) if field.name in found})
    except (ValueError, TypeError):
        return None
