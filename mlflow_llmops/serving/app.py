"""The routes of a server, and what it holds from its start to its end."""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import mlflow
import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException as StarletteHTTPException

from mlflow_llmops.batching.scorer import TextScorer, softmax
from mlflow_llmops.serving import metrics
from mlflow_llmops.serving.asked import Body, Chat, Completing, Embedding, Kind, Texts, read
from mlflow_llmops.serving.cache import Cache
from mlflow_llmops.serving.completions import chat, complete
from mlflow_llmops.serving.engine import Engine
from mlflow_llmops.serving.gate import Gate
from mlflow_llmops.serving.invocations import by_mlflow, plain_texts, predictions
from mlflow_llmops.serving.log import show_lines
from mlflow_llmops.serving.refusals import Refused
from mlflow_llmops.serving.settings import Settings
from mlflow_llmops.serving.version import Followed, Version, load_version
from mlflow_llmops.serving.work import Row, rows_of

log = logging.getLogger(__name__)
LABELS, VECTORS = "labels", "vectors"


class Server:
    """What the routes share, made when the event loop runs."""

    def __init__(self, settings: Settings, version: Version) -> None:
        self.settings = settings
        self.engine = Engine(settings.max_waiting, settings.timeout)
        self.cache = Cache(settings.cache)
        self.followed = Followed(settings.model, version, settings.poll_seconds, self._changed)

    @property
    def version(self) -> Version:
        return self.followed.version

    async def stop(self) -> None:
        await self.followed.stop()
        await self.engine.stop()

    def _changed(self, version: Version) -> None:
        self.cache.kept.clear()

    async def asked(self, kind: type[Kind], request: Request) -> Kind:
        """The body. Raises Refused for one that cannot be answered, and for a model of another name."""
        asked = read(kind, await request.body(), request.headers.get("content-type", ""))
        self.check_model(asked)
        return asked

    def check_model(self, asked: Body) -> None:
        self.check_name(asked.model)

    def check_name(self, name: str) -> None:
        """Raises Refused for a name that is not the served model's."""
        if name not in (self.settings.name, self.settings.model, self.version.uri):
            said = f"the model {name[:200]!r} is not served here; ask for {self.settings.name!r}"
            raise Refused(404, said, "model", "model_not_found")

    async def rows(self, version: Version, what: str, scorer: TextScorer, texts: Sequence[str]) -> list[Row]:
        """Raises Refused for too many texts, or one that is too long."""
        bounds = self.settings
        if len(texts) > bounds.max_texts:
            raise Refused(413, f"input: {len(texts):,} texts; at most {bounds.max_texts:,} go into a request", "input")
        if (longest := max(map(len, texts))) > bounds.max_letters:
            raise Refused(413, f"input: a text of {longest:,} letters; at most {bounds.max_letters:,}", "input")
        if any(not _is_text(text) for text in texts):
            raise Refused(400, "input: a text holds half of a surrogate pair, which is no letter", "input")
        return await rows_of(self.engine, self.cache, version, what, scorer, texts)


def _is_text(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def create(settings: Settings | None = None, version: Version | None = None) -> Any:
    """The application. A worker reads its settings from the environment and loads the model itself."""
    asked = settings or Settings.from_environment()
    show_lines()

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        found = version
        if found is None:
            found = await asyncio.to_thread(load_version, asked.model)
        app.state.server = Server(asked, found)
        log.info("%s serves as %s", found.uri, asked.name)
        yield
        await app.state.server.stop()

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    for path, route in GET.items():
        app.add_api_route(path, route, methods=["GET"])
    for path, route in POST.items():
        app.add_api_route(path, route, methods=["POST"])
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(StarletteHTTPException, _unknown)
    app.add_exception_handler(Exception, _failed)
    return Gate(app, asked, frozenset([*GET, *POST]))


async def _refused(request: Request, error: Exception) -> Response:
    return error.response if isinstance(error, Refused) else await _failed(request, error)


async def _unknown(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException | StarletteHTTPException) else 500
    said = f"{request.method} {request.url.path[:200]}: no such route; there are {', '.join([*GET, *POST])}"
    if status == 405:
        said = f"{request.method} is not a method of {request.url.path}"
    return Refused(status, said, headers=getattr(error, "headers", None)).response


async def _failed(request: Request, error: Exception) -> Response:
    """A bug, or a model that fails: uvicorn logs the traceback, the client does not get it."""
    return Refused(500, "the server failed to answer; its log says why").response


async def ping(request: Request) -> Response:
    return Response("\n", media_type="application/json")


async def told_version(request: Request) -> Response:
    """MLflow's version, as its own server answers."""
    return PlainTextResponse(mlflow.__version__)


async def told_metrics(request: Request) -> Response:
    return Response(await asyncio.to_thread(metrics.text), media_type=CONTENT_TYPE_LATEST)


async def models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_model(_server(request))]})


async def model(request: Request) -> Response:
    server = _server(request)
    server.check_name(request.path_params["name"])
    return JSONResponse(_model(server))


def _model(server: Server) -> dict[str, Any]:
    version = server.version
    described = {"id": server.settings.name, "object": "model", "created": int(version.loaded)}
    return {**described, "owned_by": "mlflow", "version": version.number, "root": version.uri}


async def chat_completions(request: Request) -> Response:
    server = _server(request)
    asked = await server.asked(Chat, request)
    return await chat(server.settings, server.engine, server.cache, server.version, asked, request)


async def completions(request: Request) -> Response:
    server = _server(request)
    asked = await server.asked(Completing, request)
    return await complete(server.settings, server.engine, server.cache, server.version, asked, request)


async def classify(request: Request) -> Response:
    server = _server(request)
    asked, version = await server.asked(Texts, request), server.version
    labels = version.labeller.labels
    rows = await server.rows(version, LABELS, version.labeller.scorer, asked.listed)
    data = []
    for index, probabilities in enumerate(softmax(np.stack([row.values for row in rows])).tolist()):
        scores = dict(zip(labels, probabilities, strict=True))
        best = max(range(len(labels)), key=probabilities.__getitem__)
        data.append({"index": index, "label": labels[best], "score": probabilities[best], "scores": scores})
    return JSONResponse({"object": "list", "model": server.settings.name, "data": data, "usage": _usage(rows)})


async def embeddings(request: Request) -> Response:
    server = _server(request)
    asked, version = await server.asked(Embedding, request), server.version
    rows = await server.rows(version, VECTORS, version.vectors, asked.listed)
    data = []
    for index, row in enumerate(rows):
        vector = (row.values / max(float(np.linalg.norm(row.values)), 1e-12)).astype("<f4")
        coded: Any = vector.tolist()
        if asked.encoding_format == "base64":
            coded = base64.b64encode(vector.tobytes()).decode()
        data.append({"object": "embedding", "index": index, "embedding": coded})
    return JSONResponse({"object": "list", "model": server.settings.name, "data": data, "usage": _usage(rows)})


async def invocations(request: Request) -> Response:
    server, body = _server(request), await request.body()
    version = server.version
    texts = plain_texts(version, body, request.headers.get("content-type", ""))
    if texts is None:
        return await by_mlflow(server.engine, version, body, request)
    rows = await server.rows(version, LABELS, version.labeller.scorer, texts)
    return JSONResponse(predictions(version.labeller.labels, rows))


def _usage(rows: Sequence[Row]) -> dict[str, int]:
    tokens = sum(row.tokens for row in rows)
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


GET = {
    "/ping": ping,
    "/health": ping,
    "/version": told_version,
    "/metrics": told_metrics,
    "/v1/models": models,
    "/v1/models/{name:path}": model,
}
POST = {
    "/v1/chat/completions": chat_completions,
    "/v1/completions": completions,
    "/v1/embeddings": embeddings,
    "/v1/classify": classify,
    "/invocations": invocations,
}
