"""A connection to a client: uvicorn's, with bounds that uvicorn lacks, and its supervisor told of what it holds."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import cache
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from mlflow_llmops.serving import metrics
from mlflow_llmops.serving.held import BEGUN, FRESH, IDLE, OPEN, telling
from mlflow_llmops.serving.refusals import LINGER, Refused
from mlflow_llmops.serving.settings import Settings

Message = MutableMapping[str, Any]
AGAIN = {"Retry-After": "1"}
MOST_AHEAD, SLICE = 100, 4096
"""Requests that a client may send on one connection before it has the answers; bytes that are looked at together."""
settings = cache(Settings.from_environment)


class Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # h11's or httptools', whichever is there
    """uvicorn bounds the pause between two requests; this one bounds the first, a head that trickles, an answer that
    nobody reads, and how many connections there are."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.bounds, self.told, self.routes = settings(), telling(), self.config.loaded_app
        self.app = self._answer
        self.state, self.number = FRESH, 0
        self.turned_away = False
        self.clock: asyncio.TimerHandle | None = None
        self.unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.number = transport.get_extra_info("socket").fileno()
        if self.told:
            self.told.opened(self.number)
        self._stay(FRESH)
        if len(self.connections) > (most := self.bounds.max_connections):
            self._turn_away(Refused(429, f"{most} connections are open already; ask again later", None, "busy", AGAIN))

    def data_received(self, data: bytes) -> None:
        if self.turned_away:
            return
        if self.state in (FRESH, IDLE):
            self._stay(OPEN)
        for start in range(0, len(data), SLICE):
            # httptools reads all requests that are there; with h11 the next one waits in the socket
            if len(getattr(self, "pipeline", ())) > MOST_AHEAD:
                self.transport.abort()
                return
            super().data_received(data[start : start + SLICE])

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unread = self.loop.call_later(self.bounds.timeout, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_unread()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._stop_unread()
        if self.told:
            self.told.closed(self.number)
            with suppress(OSError):  # the supervisor's duplicate would keep it open
                self.transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        super().connection_lost(exc)

    async def _answer(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """In the place of the routes: by then the head is whole, and the gate bounds the rest."""
        self._mark(OPEN)
        self._stop_clock()

        async def sent(message: Message) -> None:
            self._mark(BEGUN)  # before a byte of it can be there
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._stay(IDLE)

        await self.routes(scope, receive, sent)

    def _mark(self, state: int) -> None:
        self.state = state
        if self.told:
            self.told.mark(self.number, state)

    def _stay(self, state: int) -> None:
        """In a state that does not last."""
        self._mark(state)
        self._stop_clock()
        self.clock = self.loop.call_later(self.bounds.head_seconds, self._late)

    def _stop_clock(self) -> None:
        if self.clock is not None:
            self.clock.cancel()
            self.clock = None

    def _stop_unread(self) -> None:
        if self.unread is not None:
            self.unread.cancel()
            self.unread = None

    def _late(self) -> None:
        if self.state == OPEN and not self.transport.is_closing():
            said = f"the request's head did not end within {self.bounds.head_seconds:g} seconds"
            self._turn_away(Refused(408, said, None, "slow_head"))
        else:
            self.transport.close()
            self.clock = self.loop.call_later(self.bounds.timeout, self.transport.abort)  # what is left may be read

    def _turn_away(self, refused: Refused) -> None:
        """What the client still sends is read for a while: closing at once would take the answer back."""
        self.turned_away = True
        self.connections.discard(self)
        self._mark(BEGUN)
        self._stop_clock()
        metrics.requests.labels("other", str(refused.status)).inc()
        self.transport.write(refused.raw)
        self.transport.write_eof()
        self.clock = self.loop.call_later(LINGER, self.transport.abort)
