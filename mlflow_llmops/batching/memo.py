"""Answers to texts that were scored before, so that a text that comes again costs no network."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Memo(Generic[Answer]):
    """The last `rows` answers by their text; the one that was asked for longest ago goes first. For any thread.

    It keeps a digest of each text and not the text: memory does not grow with long texts, and nobody's words stay.
    """

    def __init__(self, rows: int) -> None:
        self.rows, self.hits, self.misses = rows, 0, 0
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._answers)

    def known(self, texts: Sequence[str], how: object = None) -> dict[str, Answer]:
        """The answers that are kept, by text; `how` is all else that an answer depends on."""
        if not self.rows:
            return {}
        keys = [_key(text, how) for text in texts]
        found: dict[str, Answer] = {}
        with self._lock:
            for text, key in zip(texts, keys, strict=True):
                if key in self._answers:
                    self._answers.move_to_end(key)
                    found[text] = self._answers[key]
            self.hits += len(found)
            self.misses += len(texts) - len(found)
        return found

    def keep(self, answers: dict[str, Answer], how: object = None) -> None:
        """Of more answers than there is room for, the last ones stay."""
        if not self.rows:
            return
        keyed = [(_key(text, how), answer) for text, answer in list(answers.items())[-self.rows :]]
        with self._lock:
            self._answers.update(keyed)
            while len(self._answers) > self.rows:
                self._answers.popitem(last=False)


def _key(text: str, how: object) -> bytes:
    said = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(said, digest_size=16, key=b"" if how is None else _digest(how)).digest()


def _digest(how: object) -> bytes:
    return hashlib.blake2b(repr(how).encode("utf-8", "surrogatepass"), digest_size=16).digest()
