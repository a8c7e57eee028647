"""/v1/chat/completions and /v1/completions: whole, or as events while they are written."""

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from mlflow_llmops.batching.decoding import Decoding
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.serving import metrics
from mlflow_llmops.serving.asked import Chat, Completing, Generation
from mlflow_llmops.serving.cache import Cache
from mlflow_llmops.serving.chat import as_lines
from mlflow_llmops.serving.engine import Engine, Job
from mlflow_llmops.serving.refusals import Refused, too_late
from mlflow_llmops.serving.settings import Settings
from mlflow_llmops.serving.version import Version
from mlflow_llmops.serving.work import Writing, writing_job

OPENAI_NEW_TOKENS = 16
"""What /v1/completions writes where nothing is asked for."""


@dataclass(frozen=True)
class Form:
    """How the two routes differ."""

    id: str
    whole: str
    chunk: str
    chat: bool

    def choice(self, index: int, text: str, reason: str | None, streams: bool) -> dict[str, Any]:
        said: dict[str, Any] = {"index": index, "finish_reason": reason, "logprobs": None}
        if not self.chat:
            return {**said, "text": text}
        if streams:
            return {**said, "delta": {"content": text} if text or reason is None else {}}
        return {**said, "message": {"role": "assistant", "content": text, "refusal": None}}


CHAT = Form("chatcmpl", "chat.completion", "chat.completion.chunk", True)
PLAIN = Form("cmpl", "text_completion", "text_completion", False)


@dataclass(frozen=True)
class Answering:
    """One request: what is written for it, and under which name it is answered."""

    form: Form
    version: Version
    settings: Settings
    writings: Sequence[Writing]
    usage: bool

    def described(self, kind: str, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"object": kind, "model": self.settings.name, "system_fingerprint": self.version.uri, "choices": choices}

    @property
    def counted(self) -> dict[str, int]:
        prompt = sum(len(each.ids) for each in self.writings)
        completion = sum(len(each.tokens) for each in self.writings)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }


async def chat(settings: Settings, engine: Engine, cache: Cache, version: Version, asked: Chat, request: Request):
    """One answer to the messages."""
    generator, template = version.generator, version.chat
    messages = [each.plain for each in asked.messages]
    prompt = template.render(messages) if template else as_lines(messages)
    most = asked.max_completion_tokens or asked.max_tokens
    # a template writes the tokens that a text begins with itself
    writing = _writing(settings, version, prompt, asked, most, settings.new_tokens, template is None)
    answering = Answering(CHAT, version, settings, [writing], _wants_usage(asked))
    return await _answer(engine, cache, answering, bool(asked.stream), request, generator.max_length)


async def complete(
    settings: Settings, engine: Engine, cache: Cache, version: Version, asked: Completing, request: Request
):
    """What follows each prompt."""
    prompts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
    if len(prompts) > settings.max_texts:
        raise Refused(413, f"prompt: {len(prompts):,} prompts; at most {settings.max_texts:,} go into a request")
    most = asked.max_tokens
    writings = [_writing(settings, version, each, asked, most, OPENAI_NEW_TOKENS, True) for each in prompts]
    answering = Answering(PLAIN, version, settings, writings, _wants_usage(asked))
    return await _answer(engine, cache, answering, bool(asked.stream), request, version.generator.max_length)


def _wants_usage(asked: Generation) -> bool:
    return asked.stream_options is not None and asked.stream_options.include_usage


def _writing(
    settings: Settings, version: Version, prompt: str, asked: Generation, most: int | None, usual: int, special: bool
) -> Writing:
    """Raises Refused for a prompt that is too long for what is to follow, or for letters that a text cannot have."""
    if len(prompt) > settings.max_letters:
        raise Refused(413, f"the prompt has {len(prompt):,} letters; at most {settings.max_letters:,} are read")
    generator = version.generator
    try:
        ids = generator.encode([prompt], settings.max_letters, special)[0]
    except UnicodeEncodeError as error:
        raise Refused(400, "the prompt holds half of a surrogate pair, which is no letter") from error
    room = generator.max_length - len(ids)
    if room < (most or 1):
        raise Refused(
            400,
            f"the prompt has {len(ids)} tokens and {most or 1} are to follow, but the model's context is "
            f"{generator.max_length}; shorten the prompt or lower max_tokens",
            "max_tokens" if most else None,
            "context_length_exceeded",
        )
    seed = random.getrandbits(63) if asked.seed is None else asked.seed % 2**63
    try:
        how = Decoding(
            most or min(usual, room),
            1.0 if asked.temperature is None else asked.temperature,
            1.0 if asked.top_p is None else asked.top_p,
            asked.stops,
            seed,
        )
    except ConfigError as error:
        raise Refused(400, str(error), str(error).partition("=")[0]) from error
    return Writing(generator, prompt, ids, how)


async def _answer(
    engine: Engine, cache: Cache, answering: Answering, streams: bool, request: Request, room: int
) -> Response:
    jobs: list[Job] = []
    try:
        for writing in answering.writings:
            jobs.append(_begin(engine, cache, answering.version, writing, streams))
    except Refused:
        for job in jobs:
            job.gone = True
        raise
    head = {"id": f"{answering.form.id}-{uuid.uuid4().hex}", "created": int(time.time())}
    if streams:
        events = _events(engine, cache, answering, jobs, head)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
    async with _waited_for(jobs, request):
        done, late = await asyncio.wait([job.future for job in jobs], timeout=engine.timeout)
    if late:
        raise too_late(engine.timeout)
    if any(each.cancelled() for each in done):
        raise Refused(499, "the client closed the connection")
    for each in done:
        each.result()
    _remember(cache, answering)
    choices = [answering.form.choice(i, each.text, each.reason, False) for i, each in enumerate(answering.writings)]
    return JSONResponse({**head, **answering.described(answering.form.whole, choices), "usage": answering.counted})


def _key(version: Version, writing: Writing) -> Any:
    # what is drawn depends on the seed, which is another one each time where none was given
    return (version.uri, "write", writing.prompt, writing.ids.tobytes(), writing.how)


def _begin(engine: Engine, cache: Cache, version: Version, writing: Writing, streams: bool) -> Job:
    if writing.how.temperature == 0:
        writing.how = Decoding(writing.how.max_new_tokens, 0.0, 1.0, writing.how.stop, 0)
    job = writing_job(version, writing, streams)
    kept = cache.get(_key(version, writing))
    if kept is None:
        return engine.submit(job)
    writing.found.ids[:] = kept
    writing.ended = True
    writing.wrote.set()
    job.finish(writing)
    return job


def _remember(cache: Cache, answering: Answering) -> None:
    for each in answering.writings:
        cache.keep(_key(answering.version, each), tuple(each.tokens))


@asynccontextmanager
async def _waited_for(jobs: Sequence[Job], request: Request) -> AsyncIterator[None]:
    """Until the block ends, or the client is gone: then nobody wants the jobs, and their rows are written no more."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        metrics.hung_up.inc()
        for job in jobs:
            job.gone = True
            job.future.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        for job in jobs:
            job.gone = True


async def _events(
    engine: Engine, cache: Cache, answering: Answering, jobs: Sequence[Job], head: dict[str, Any]
) -> AsyncIterator[bytes]:
    form, whole = answering.form, False

    def event(choices: Sequence[dict[str, Any]], **more: Any) -> bytes:
        return _event({**head, **answering.described(form.chunk, choices), **more})

    try:
        async with asyncio.timeout(engine.timeout):
            for index, (job, writing) in enumerate(zip(jobs, answering.writings, strict=True)):
                if form.chat:
                    first = form.choice(index, "", None, True)
                    yield event([{**first, "delta": {"role": "assistant", "content": ""}}])
                async for piece in _pieces(job, writing):
                    yield event([form.choice(index, piece, None, True)])
                yield event([form.choice(index, "", writing.reason, True)])
        if answering.usage:
            yield event([], usage=answering.counted)
        _remember(cache, answering)
        whole = True
        yield b"data: [DONE]\n\n"
    except TimeoutError:
        whole = True
        yield _event(too_late(engine.timeout).body)
    except Refused as refused:
        whole = True
        yield _event(refused.body)
    finally:
        if not whole:
            metrics.hung_up.inc()
        for job in jobs:
            job.gone = True


async def _pieces(job: Job, writing: Writing) -> AsyncIterator[str]:
    """The text as it grows. Raises Refused where the model failed."""
    sent = ""
    while True:
        told = asyncio.ensure_future(writing.wrote.wait())
        await asyncio.wait([told, job.future], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        writing.wrote.clear()
        if job.future.done():
            if job.future.exception() is not None:
                raise Refused(500, "the model failed; the server's log says why")
            writing.ended = True
        text = writing.text if writing.tokens else ""
        # a decoder may change its last letters with the next token
        if text != sent and text.startswith(sent):
            yield text[len(sent) :]
            sent = text
        if writing.ended:
            return


def _event(said: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(said, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"
