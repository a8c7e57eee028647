"""What a worker tells of the connections that it holds, so that somebody can answer when it is killed.

Each connection is told once, with a duplicate of its descriptor, through a Unix socket; what becomes of it afterwards
is a byte in memory that both sides see, since a message for each request would cost more than some answers do.
"""

import logging
import mmap
import os
import socket
import tempfile
from contextlib import suppress
from functools import cache
from multiprocessing import reduction
from typing import Any

log = logging.getLogger(__name__)
PLACE = "LLMOPS_SERVE_HELD"
"""The variable with the path of the supervisor's socket; not set: there is none."""
ROOM = 2**16
"""A connection's byte stands at its descriptor's number in the worker; those above are not told."""
UNKNOWN, FRESH, IDLE, OPEN, BEGUN = range(5)
"""Of a connection: closed; without a request so far; between requests; one came in part or whole and has no answer yet;
its answer is on its way."""
WORD = 4
"""Bytes of a message: a descriptor's number. With a descriptor it was opened, without one it was closed."""


class Telling:
    """A worker's side. A supervisor that is gone or slow costs the protection, never a request."""

    def __init__(self, place: str) -> None:
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.channel.connect(place)
        with tempfile.TemporaryFile() as file:
            file.truncate(ROOM)
            self.states = mmap.mmap(file.fileno(), ROOM)
            socket.send_fds(self.channel, [_word(0)], [file.fileno()])
        self.channel.setblocking(False)

    def opened(self, number: int) -> None:
        """Of a descriptor's number; a connection that was told is not told again."""
        if number < ROOM and self.states[number] == UNKNOWN:
            with suppress(OSError):
                socket.send_fds(self.channel, [_word(number)], [number])
                self.states[number] = FRESH

    def mark(self, number: int, state: int) -> None:
        if number < ROOM and self.states[number] != UNKNOWN:
            self.states[number] = state

    def closed(self, number: int) -> None:
        """Before the descriptor is closed, since its number comes again."""
        if number < ROOM and self.states[number] != UNKNOWN:
            self.states[number] = UNKNOWN
            with suppress(OSError):
                self.channel.send(_word(number))


@cache
def telling() -> Telling | None:
    """This worker's; None where nobody listens."""
    if not (place := os.environ.get(PLACE)):
        return None
    try:
        return Telling(place)
    except OSError as error:
        log.warning("if this worker is killed, the connections that it holds just close: %s", error)
        return None


class Listening(socket.socket):
    """A socket that a worker accepts from, each connection told before anything else can happen to the worker."""

    def accept(self) -> tuple[socket.socket, Any]:
        connection, address = super().accept()
        if told := telling():
            told.opened(connection.fileno())
        return connection, address

    def __reduce__(self) -> Any:
        return _listening, (reduction.DupFd(self.fileno()), self.family, self.type, self.proto)


def _listening(copy: Any, family: int, kind: int, protocol: int) -> Listening:
    return Listening(family, kind, protocol, fileno=copy.detach())


def _word(number: int) -> bytes:
    return number.to_bytes(WORD, "big")
