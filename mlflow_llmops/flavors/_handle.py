"""A model that can be sent to another process, which opens it for itself."""

import os
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from mlflow_llmops.batching.digest import digest_of
from mlflow_llmops.batching.options import EngineOptions
from mlflow_llmops.batching.sessions import KEPT
from mlflow_llmops.engines import default_threads
from mlflow_llmops.flavors._server import widen_server

Session = TypeVar("Session")

TOKENIZER_THREADS, SET_BY_US = "RAYON_NUM_THREADS", "LLMOPS_RAYON_NUM_THREADS"


class Handle(Generic[Session]):
    """What `open_(folder, options, *settings)` gives, the same object for every handle of this process on equal files,
    options and settings.

    After a fork, or pickled into another process, it opens again from the folder: the threads of a runtime do not come
    along. `open_` is a function of a module; `parts` are the subfolders that its result depends on.
    """

    def __init__(
        self,
        open_: Callable[..., Session],
        folder: Path,
        options: EngineOptions,
        parts: tuple[str, ...] = ("",),
        settings: tuple[Hashable, ...] = (),
    ) -> None:
        self._given = open_, folder, options, parts, settings
        self._process = 0
        if options.gather:
            widen_server(options.queue)
        self.session  # a folder that cannot be opened is told when the model is loaded  # noqa: B018

    @property
    def session(self) -> Session:
        """Opened on first use in this process."""
        if self._process != os.getpid():
            open_, folder, options, parts, settings = self._given
            threads = options.threads or default_threads()
            contents = digest_of(*(folder / part for part in parts))
            key = (f"{open_.__module__}:{open_.__qualname__}", contents, replace(options, threads=threads), settings)
            _bound_tokenizers(threads)
            self._session: Session = KEPT.get(key, lambda: open_(folder, options, *settings))
            self._process = os.getpid()
        return self._session

    def forgetful(self) -> "Handle[Session]":
        """The same without a memo: a stopwatch would time that."""
        open_, folder, options, parts, settings = self._given
        return Handle(open_, folder, replace(options, memo_rows=0), parts, settings)

    def __getstate__(self) -> dict[str, Any]:
        return {"_given": self._given, "_process": 0}


def _bound_tokenizers(threads: int) -> None:
    """Rust's tokenizers would take every core, whatever the task has been given. What the user set stays; what a parent
    of ours set, as Spark's driver for its tasks, was for that one's cores."""
    if os.environ.get(TOKENIZER_THREADS) == os.environ.get(SET_BY_US):
        os.environ[TOKENIZER_THREADS] = os.environ[SET_BY_US] = str(threads)
