"""The version that is served, ready to run, and how it follows its alias."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from mlflow.pyfunc import PyFuncModel
from mlflow.pyfunc import load_model as load_pyfunc

from mlflow_llmops.batching.generator import TextGenerator
from mlflow_llmops.batching.scorer import TextScorer
from mlflow_llmops.errors import ModelError
from mlflow_llmops.flavors._completions import CompletionPredictor
from mlflow_llmops.flavors._labels import LabelPredictor
from mlflow_llmops.serving import metrics
from mlflow_llmops.serving.chat import ChatTemplate
from mlflow_llmops.serving.refusals import Refused
from mlflow_llmops.tracking.references import MLMODEL, download, pinned

log = logging.getLogger(__name__)
AGAIN = 60.0
"""Seconds until a version that did not load is tried again."""
WARM = "A text of some words."


@dataclass(frozen=True, eq=False)
class Version:
    """A model in memory."""

    uri: str
    """With the version's number, where it has one."""
    number: str
    folder: Path
    model: PyFuncModel
    raw: object
    """What the pyfunc wraps, where it is one of ours that answers itself."""
    loaded: float

    @property
    def labeller(self) -> LabelPredictor:
        """Raises Refused where it labels nothing."""
        if not isinstance(self.raw, LabelPredictor):
            raise Refused(400, f"{self.uri} is no classifier of ours; it answers at {self._where}")
        return self.raw

    @property
    def generator(self) -> TextGenerator:
        """Raises Refused where it writes nothing."""
        if not isinstance(self.raw, CompletionPredictor):
            raise Refused(400, f"{self.uri} is no causal model of ours; it answers at {self._where}")
        return self.raw.generator

    @cached_property
    def vectors(self) -> TextScorer:
        """From texts to the means of their last hidden states. Raises Refused where it gives its answers alone."""
        scorer = self.labeller.scorer
        net = getattr(scorer.network, "net", None)
        if net is None:
            raise Refused(400, f"{self.uri} is a graph that gives its answers alone; serve the torch version it is of")
        from mlflow_llmops.models.embedder import mean_states

        embed = partial(mean_states, net.base_model)
        return TextScorer(scorer.tokenizer, embed, scorer.max_length, scorer.pad_id, scorer.token_budget)

    @cached_property
    def chat(self) -> ChatTemplate | None:
        return ChatTemplate.of(self.folder)

    @property
    def _where(self) -> str:
        if isinstance(self.raw, LabelPredictor):
            return "/v1/classify and /invocations"
        if isinstance(self.raw, CompletionPredictor):
            return "/v1/chat/completions, /v1/completions and /invocations"
        return "/invocations"


def load_version(reference: str) -> Version:
    """Fetch a model, load it and run it once. Raises ModelError where it or a library of it is not there."""
    uri, number = pinned(reference)
    folder = download(uri)
    if not (folder / MLMODEL).is_file():
        raise ModelError(f"model={reference}: no MLflow model lies there; give models:/name/3 or models:/name@alias")
    try:
        model = load_pyfunc(str(folder))
    except ModuleNotFoundError as error:
        wanted = f"model={reference} needs {error.name}, which is not installed here"
        raise ModelError(f"{wanted}; install what its requirements.txt names") from error
    try:
        raw = model.get_raw_model()
    except NotImplementedError:
        raw = None
    if isinstance(raw, LabelPredictor | CompletionPredictor):  # others may ask an endpoint, which is paid
        raw.predict([WARM])
    return Version(uri, number, folder, model, raw, time.time())


class Followed:
    """The version that a reference means: looked up again and again, loaded beside the one that serves, swapped."""

    def __init__(self, reference: str, version: Version, poll: float, changed: Callable[[Version], None]) -> None:
        self.reference, self.version, self.poll, self.changed = reference, version, poll, changed
        self.failed: dict[str, float] = {}
        self.thread = ThreadPoolExecutor(1, "versions")
        self._said(version)
        self.task = asyncio.get_running_loop().create_task(self._follow()) if version.number else None

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
        self.thread.shutdown(wait=False, cancel_futures=True)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self.poll)
            await self._look()

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        asked = loop.run_in_executor(self.thread, pinned, self.reference)
        await asyncio.wait([asked])
        if (error := asked.exception()) is not None:
            log.warning("%s cannot be looked up, version %s serves on: %s", self.reference, self.version.number, error)
            return
        uri = asked.result()[0]
        if uri == self.version.uri or time.monotonic() - self.failed.get(uri, -AGAIN) < AGAIN:
            return
        loading = loop.run_in_executor(self.thread, load_version, uri)
        await asyncio.wait([loading])
        if (error := loading.exception()) is not None:
            self.failed[uri] = time.monotonic()
            metrics.changes.labels("failed").inc()
            log.error("%s does not load, %s serves on: %s", uri, self.version.uri, _line(error))
            return
        before, self.version = self.version, loading.result()
        metrics.changes.labels("loaded").inc()
        self._said(self.version)
        self.changed(self.version)
        log.info("%s serves, after %s", self.version.uri, before.uri)

    def _said(self, version: Version) -> None:
        metrics.ready.set(1)
        metrics.version.set(int(version.number) if version.number.isdigit() else 0)


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
