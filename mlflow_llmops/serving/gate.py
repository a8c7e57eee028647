"""What every request passes before a route sees it: the key, the body within its bounds, the clock."""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mlflow_llmops.serving import metrics
from mlflow_llmops.serving.refusals import CLOSE, Refused
from mlflow_llmops.serving.settings import Settings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

OPEN = ("/ping", "/health", "/version")
"""What anybody may ask."""
DRAINED = 8
"""A body that is too large is read up to so many times its bound, so that the client gets to read the refusal."""


class Gate:
    """ASGI middleware; it reads a body whole, and hands it on in one piece."""

    def __init__(self, app: Any, settings: Settings, routes: frozenset[str]) -> None:
        self.app, self.settings, self.routes = app, settings, routes
        self.key = settings.key.encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, path = time.perf_counter(), scope["path"]
        status = 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check_key(scope)
            body = await self._body(scope, receive)
            await self.app(scope, _again(body, receive), counted)
        except Refused as refused:
            await refused.response(scope, receive, counted)
        except ConnectionError:  # the client left while it sent its body
            metrics.hung_up.inc()
        finally:
            route = path if path in self.routes else "other"
            metrics.requests.labels(route, str(status)).inc()
            metrics.seconds.labels(route).observe(time.perf_counter() - start)

    def _check_key(self, scope: Message) -> None:
        if not self.key or scope["path"] in OPEN:
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = given.partition(b" ")
        if not (hmac.compare_digest(token.strip(), self.key) and scheme.lower() == b"bearer"):
            said = {"WWW-Authenticate": "Bearer"}
            raise Refused(401, "the API key is missing or wrong; send it as Authorization: Bearer KEY", headers=said)

    async def _body(self, scope: Message, receive: Receive) -> bytes:
        """Raises Refused for a body that is too large or does not end, ConnectionError where the client leaves."""
        if scope["method"] in ("GET", "HEAD"):
            return b""
        bound = self.settings.body_bytes
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        said = f"the body is larger than {bound:,} bytes; send fewer texts"
        too_large = Refused(413, said, None, "too_large", CLOSE)
        if int(declared) > bound * DRAINED:
            raise too_large
        parts, size, more = [], 0, True
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                while more and size <= bound * DRAINED:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionError
                    size += len(message.get("body", b""))
                    if size <= bound:
                        parts.append(message.get("body", b""))
                    more = message.get("more_body", False)
        except TimeoutError:
            after = f"the body did not end within {self.settings.body_seconds:g} seconds"
            raise Refused(408, after, None, "slow_body", CLOSE) from None
        if size > bound:
            raise too_large
        return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """The body in one message, then what comes after it: that the client leaves."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
