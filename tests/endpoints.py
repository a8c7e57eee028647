"""A real OpenAI-compatible endpoint on this machine, with the faults that real ones have."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from zlib import crc32

import pytest

KEY = "sk-secret-0123456789-never-to-be-seen"


@dataclass
class Fault:
    """What happens to one request instead of an answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str = '{"error": {"message": "a fault"}}'
    hang: float = 0.0
    close: bool = False


@dataclass
class Seen:
    """A request as it arrived."""

    prompt: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: float


class OpenAIServer:
    """Answers `answer(prompt)` after `delay(prompt)` seconds, unless `faults` holds something for the next request."""

    key = KEY

    def __init__(self) -> None:
        self.answer: Callable[[str], str | None] = lambda prompt: f"answer to {prompt}"
        self.delay: Callable[[str], float] = lambda prompt: 0.0
        self.fault: Callable[[str], Fault | None] = lambda prompt: self.faults.pop(0) if self.faults else None
        self.faults: list[Fault | None] = []
        self.finish_reason = "stop"
        self.usage = True
        self.seen: list[Seen] = []
        self.most_at_once = self.at_once = 0
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def fail(self, times: int = 1, **fault: Any) -> None:
        """The next requests fail so."""
        self.faults += [Fault(**fault)] * times

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    @property
    def prompts(self) -> list[str]:
        return [each.prompt for each in self.seen]

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def completion(self, text: str | None, prompt: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        found: dict[str, Any] = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish_reason}],
        }
        if self.usage:
            asked, answered = len(prompt.split()), len((text or "").split())
            found["usage"] = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
        return found

    def embeddings(self, body: dict[str, Any]) -> dict[str, Any]:
        """A text's vector counts its words, by their hash."""
        vectors = []
        for text in [body["input"]] if isinstance(body["input"], str) else body["input"]:
            vector = [0.0] * 64
            for word in re.findall(r"\w+", text.lower()):
                vector[crc32(word.encode()) % 64] += 1.0
            vectors.append(vector)
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        return {"object": "list", "model": "e", "data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][-1]["content"] if "messages" in body else str(body["input"])
                with server.lock:
                    server.seen.append(
                        Seen(prompt, body, {k.lower(): v for k, v in self.headers.items()}, time.monotonic())
                    )
                    fault = server.fault(prompt)
                    server.at_once += 1
                    server.most_at_once = max(server.most_at_once, server.at_once)
                try:
                    self._reply(body, prompt, fault)
                except (BrokenPipeError, ConnectionResetError):
                    pass
                finally:
                    with server.lock:
                        server.at_once -= 1

            def _reply(self, body: dict[str, Any], prompt: str, fault: Fault | None) -> None:
                time.sleep(fault.hang if fault else server.delay(prompt))
                if fault and fault.close:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                embeds = self.path.endswith("/embeddings")
                if fault:
                    text = fault.body
                elif embeds:
                    text = json.dumps(server.embeddings(body))
                else:
                    text = json.dumps(server.completion(server.answer(prompt), prompt))
                payload = text.encode()
                self.send_response(fault.status if fault else 200)
                for name, value in (fault.headers if fault else {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *args: Any) -> None:
                pass

        return Handler


@pytest.fixture
def openai_server(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[OpenAIServer]:
    """An endpoint, with a key and an empty folder of answers in the environment."""
    for name in ("OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("LLMOPS_ANSWERS", str(tmp_path / "answers"))
    server = OpenAIServer()
    yield server
    server.close()
