"""What a client is told when it cannot have what it asked for: a status, a line, never a traceback."""

import math
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse

TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
CLOSE = {"Connection": "close"}
LINGER = 2.0
"""Seconds that a client has to read a refusal after which its connection is closed."""


class Refused(Exception):
    """An answer other than 200, in the form that OpenAI's clients read."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers

    @property
    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)

    @property
    def raw(self) -> bytes:
        """All bytes of the answer, for a connection on which no route answers and that is closed after it."""
        answer = JSONResponse(self.body, self.status, {**(self.headers or {}), **CLOSE})
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}".encode()]
        lines += [name + b": " + value for name, value in answer.raw_headers]
        return b"\r\n".join([*lines, b"", bytes(answer.body)])


def busy(seconds: float) -> Refused:
    """`seconds` are what the waiting requests will take."""
    after = str(min(60, max(1, math.ceil(seconds))))
    return Refused(429, "too many requests wait already; ask again later", None, "busy", {"Retry-After": after})


def too_late(seconds: float) -> Refused:
    return Refused(504, f"no answer within {seconds:g} seconds; ask for less, or raise --timeout", None, "timeout")
