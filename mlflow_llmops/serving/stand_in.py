"""Answers for workers that were killed: what they held is told 502, each on its own connection.

It runs in the supervisor, beside uvicorn's, which starts the next worker.
"""

import logging
import mmap
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import Counter

from mlflow_llmops.serving.held import BEGUN, FRESH, IDLE, OPEN, PLACE, ROOM, WORD
from mlflow_llmops.serving.refusals import LINGER, Refused

log = logging.getLogger(__name__)
TICK = 0.5
SPARE = 200
"""Descriptors that the supervisor keeps for itself."""
lost = Counter("llmops_lost_requests", "Requests answered with 502, since the worker that held them died")


@dataclass(eq=False)
class Worker:
    """What one of them has told."""

    channel: socket.socket
    states: mmap.mmap | None = None
    held: dict[int, socket.socket] = field(default_factory=dict)

    def drop(self, number: int) -> None:
        if held := self.held.pop(number, None):
            held.close()


class StandIn:
    """A thread that holds a duplicate of every connection, and speaks on it when its worker does no more."""

    def __init__(self, folder: Path, patience: float, descriptors: int) -> None:
        self.patience, self.most = patience, descriptors - SPARE
        self.workers: set[Worker] = set()
        self.left: dict[socket.socket, float] = {}
        """Connections of the dead that wait for their client, and until when."""
        self.over = False
        self.selector = selectors.DefaultSelector()
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(str(folder / "held"))
        self.listening.listen()
        self.selector.register(self.listening, selectors.EVENT_READ, self._welcome)
        os.environ[PLACE] = str(folder / "held")
        self.thread = threading.Thread(target=self._run, name="stand-in", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """When all workers have ended: what one of them left is answered first."""
        self.over = True
        self.thread.join(self.patience + LINGER)
        os.environ.pop(PLACE, None)

    def _run(self) -> None:
        while not self.over or self.workers or self.left:
            for key, _ in self.selector.select(TICK):
                key.data()
            now = time.monotonic()
            for connection in [each for each, until in self.left.items() if until < now]:
                self._leave(connection)
        self.listening.close()

    def _welcome(self) -> None:
        worker = Worker(self.listening.accept()[0])
        self.workers.add(worker)
        self.selector.register(worker.channel, selectors.EVENT_READ, lambda: self._hear(worker))

    def _hear(self, worker: Worker) -> None:
        try:
            said, descriptors, _, _ = socket.recv_fds(worker.channel, WORD, 1)
        except OSError:
            said, descriptors = b"", []
        if not said:
            self._died(worker)
            return
        number = int.from_bytes(said, "big")
        worker.drop(number)  # of a close that was not told
        for descriptor in descriptors:
            if worker.states is None:
                worker.states = mmap.mmap(descriptor, ROOM)
            elif sum(len(each.held) for each in self.workers) < self.most:
                worker.held[number] = socket.socket(fileno=descriptor)
                continue
            os.close(descriptor)

    def _died(self, worker: Worker) -> None:
        """Or it ended well: then it holds nothing."""
        self.selector.unregister(worker.channel)
        worker.channel.close()
        self.workers.discard(worker)
        answered = 0
        for number, connection in worker.held.items():
            state = worker.states[number] if worker.states else BEGUN
            asked = _has_bytes(connection)
            if state == OPEN or (asked and state in (FRESH, IDLE)):
                answered += self._answer(connection)
            elif state == FRESH and asked is not None:
                self._await(connection, self.patience, lambda one=connection: self._came(one))  # type: ignore[misc]
            else:  # a client that kept it for later opens another; an answer that has begun cannot be taken back
                connection.close()
        if worker.held:
            log.error(
                "a worker died with %d connections, %d of their requests are told 502", len(worker.held), answered
            )

    def _answer(self, connection: socket.socket) -> bool:
        """Then what the client still sends is read for a while: closing at once would take the answer back."""
        died = Refused(502, "the worker that held this request died; ask again", code="worker_died")
        try:
            connection.send(died.raw)
            connection.shutdown(socket.SHUT_WR)
        except OSError:  # the client has gone
            connection.close()
            return False
        lost.inc()
        self._await(connection, LINGER, lambda: self._drain(connection))
        return True

    def _came(self, connection: socket.socket) -> None:
        """The first request of a connection that the dead had accepted."""
        asked = _has_bytes(connection)
        self._leave(connection, close=not asked)
        if asked:
            self._answer(connection)

    def _drain(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if connection.recv(65536):
                return
        self._leave(connection)

    def _await(self, connection: socket.socket, seconds: float, readable: Callable[[], None]) -> None:
        self.left[connection] = time.monotonic() + seconds
        self.selector.register(connection, selectors.EVENT_READ, readable)

    def _leave(self, connection: socket.socket, close: bool = True) -> None:
        del self.left[connection]
        self.selector.unregister(connection)
        if close:
            connection.close()


def _has_bytes(connection: socket.socket) -> bool | None:
    """Whether something came that nobody has read; None: the client has gone."""
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)) or None
    except BlockingIOError:
        return False
    except OSError:
        return None
