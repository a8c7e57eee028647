"""What was opened in this process, kept for whoever loads the same model again, as MLflow does for every Spark task."""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, Generic, TypeVar

from mlflow_llmops.errors import ConfigError

Session = TypeVar("Session")

ROOM = "LLMOPS_SESSIONS"
SESSIONS = 2
"""A champion and its challenger; a model that leaves the cache lives as long as someone uses it."""


class Sessions(Generic[Session]):
    """The last few sessions by key; each is opened once, however many threads ask, and none waits for another's."""

    def __init__(self) -> None:
        self.hits = self.misses = 0
        self._open: OrderedDict[Hashable, Session] = OrderedDict()
        self._lock, self._opening = Lock(), dict[Hashable, Lock]()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, key: Hashable, open_: Callable[[], Session]) -> Session:
        """The session of `key`, opened by `open_` where it is not kept."""
        with self._lock:
            opening = self._opening.setdefault(key, Lock())
        try:
            with opening:
                with self._lock:
                    if key in self._open:
                        self.hits += 1
                        self._open.move_to_end(key)
                        return self._open[key]
                session = open_()
                with self._lock:
                    self.misses += 1
                    self._open[key] = session
                    while len(self._open) > room():
                        self._open.popitem(last=False)
                return session
        finally:
            with self._lock:
                self._opening.pop(key, None)

    def leave(self) -> list[Session]:
        """Begin anew, without closing anything: gives what was open."""
        before = list(self._open.values())
        self.__init__()  # type: ignore[misc]
        return before


def room() -> int:
    """How many are kept; the variable LLMOPS_SESSIONS sets it, 0 keeps none."""
    wanted = os.environ.get(ROOM, str(SESSIONS))
    if not wanted.isdigit():
        raise ConfigError(f"{ROOM}={wanted!r}: must be a whole number, 0 or above")
    return int(wanted)


KEPT: Sessions[Any] = Sessions()
_OF_THE_PARENT: list[Any] = []


def _begin_anew() -> None:
    """In a forked child: a runtime's threads did not come along, so what was opened before cannot run there, nor be
    closed, nor a lock be given back."""
    _OF_THE_PARENT.append(KEPT.leave())


os.register_at_fork(after_in_child=_begin_anew)
