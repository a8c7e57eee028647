"""The chains, built of LangChain's parts from a folder: prompt to model to parser, or retrieval before that."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.language_models.llms import BaseLLM
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import Generation, LLMResult
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_text_splitters import RecursiveCharacterTextSplitter

from mlflow_llmops.batching.plan import TOKEN_BUDGET
from mlflow_llmops.batching.scorer import TextScorer
from mlflow_llmops.endpoint.client import quiet_http_client
from mlflow_llmops.endpoint.prompt import as_format_string
from mlflow_llmops.flavors._chain_settings import CONTEXT, ENCODER, INDEX, QUESTION, WRITER, ChainSettings
from mlflow_llmops.flavors._chat_settings import ChatSettings

VECTORS, PASSAGES = "vectors.npy", "passages.json"
SOURCE = "source"


def build(folder: Path) -> Runnable[dict[str, str], Any]:
    """The chain whose settings stand in `folder`: from the columns of a row to its answer, for retrieval a dict of
    `answer` and `sources`."""
    settings = ChainSettings.read(folder)
    answered = prompt_of(settings) | _model(settings, folder) | StrOutputParser()
    if settings.chain != "rag":
        return answered
    found = RunnablePassthrough.assign(passages=_question | retriever_of(settings, folder))
    return found.assign(**{CONTEXT: _context}).assign(answer=answered, sources=_sources).pick(["answer", "sources"])


def asked_of(folder: Path) -> Runnable[dict[str, str], Any]:
    """The part of the chain before its model: from the columns of a row to the prompt, in which nothing is random."""
    settings = ChainSettings.read(folder)
    prompt = prompt_of(settings)
    if settings.chain != "rag":
        return prompt
    found = RunnablePassthrough.assign(passages=_question | retriever_of(settings, folder))
    return found.assign(**{CONTEXT: _context}) | prompt


def prompt_of(settings: ChainSettings) -> Runnable[dict[str, str], Any]:
    """Messages for an endpoint, a text for a model of ours, which knows no roles."""
    prompt, system = as_format_string(settings.prompt), settings.system
    escaped = (system or "").replace("{", "{{").replace("}", "}}")
    if settings.endpoint is None:
        return PromptTemplate.from_template(f"{escaped}\n\n{prompt}" if system else prompt)
    return ChatPromptTemplate.from_messages([*([("system", escaped)] if system else []), ("human", prompt)])


def index(documents: Sequence[tuple[str, str]], embeddings: Embeddings, size: int, overlap: int, folder: Path) -> int:
    """Cut documents, (source, text), into passages of at most `size` letters, and write them with their vectors.

    Gives the number of passages.
    """
    splitter = RecursiveCharacterTextSplitter(chunk_size=size, chunk_overlap=overlap, add_start_index=True)
    texts, sources = [text for _, text in documents], [{SOURCE: source} for source, _ in documents]
    passages = splitter.create_documents(texts, sources)
    vectors = np.array(embeddings.embed_documents([each.page_content for each in passages]), dtype=np.float32)
    folder.mkdir(parents=True)
    np.save(folder / VECTORS, _unit(vectors), allow_pickle=False)
    stored = [{"text": each.page_content, **each.metadata} for each in passages]
    (folder / PASSAGES).write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")
    return len(stored)


def embeddings_of(settings: ChainSettings, folder: Path) -> Embeddings:
    """An endpoint's, or those of the encoder in the folder."""
    if settings.embeddings is None:
        return MeanPooled(folder / ENCODER)
    return OpenAIEmbeddings(
        model=settings.embeddings.model,
        # it would cut texts with a tokenizer that is fetched from OpenAI, and send tokens, which few others take
        check_embedding_ctx_length=False,
        **_connection(settings.embeddings),
    )


class MeanPooled(Embeddings):
    """An encoder of ours as LangChain wants it; equal texts are encoded once, in batches of similar length."""

    def __init__(self, folder: Path) -> None:
        from mlflow_llmops.models.embedder import MeanStates

        states = MeanStates(folder)
        self._scorer = TextScorer(states.encoder, states, states.max_length, states.pad_id, TOKEN_BUDGET["torch"])

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        found: list[list[float]] = _unit(self._scorer.logits(texts)).tolist()
        return found

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


class FolderRetriever(BaseRetriever):
    """The passages nearest to a question, by cosine over all of them."""

    vectors: Any
    passages: list[dict[str, Any]]
    embeddings: Any
    top_k: int

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        question = _unit(np.array([self.embeddings.embed_query(query)], dtype=np.float32))[0]
        nearness = self.vectors @ question
        nearest = np.argsort(-nearness, kind="stable")[: self.top_k]
        return [_document(self.passages[i], float(nearness[i])) for i in nearest]


def retriever_of(settings: ChainSettings, folder: Path) -> FolderRetriever:
    """Over the index in the folder."""
    return FolderRetriever(
        vectors=np.load(folder / INDEX / VECTORS, allow_pickle=False),
        passages=json.loads((folder / INDEX / PASSAGES).read_text(encoding="utf-8")),
        embeddings=embeddings_of(settings, folder),
        top_k=settings.top_k,
    )


class Written(BaseLLM):
    """A causal version of ours, torch or exported, inside a chain: all prompts of a batch at once."""

    model: Any
    params: dict[str, Any]

    @property
    def _llm_type(self) -> str:
        return "mlflow-llmops"

    def _generate(
        self, prompts: list[str], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> LLMResult:
        params = {**self.params, **({"stop": stop} if stop else {})}
        written = self.model.predict(prompts, params=params)
        return LLMResult(generations=[[Generation(text=text or "")] for text in written])


def _model(settings: ChainSettings, folder: Path) -> Runnable[Any, Any]:
    params: dict[str, Any] = {"max_new_tokens": settings.max_new_tokens, "temperature": settings.temperature or 0.0}
    if settings.endpoint is None:
        return Written(model=mlflow.pyfunc.load_model(str(folder / WRITER)), params=params)
    request = settings.endpoint.endpoint({}).request("")
    limit = {"max_tokens": request["max_tokens"]} if "max_tokens" in request else {}
    return ChatOpenAI(
        model=settings.endpoint.model,
        temperature=settings.endpoint.temperature,
        max_completion_tokens=None if limit else settings.endpoint.max_new_tokens,
        extra_body=limit or None,  # ChatOpenAI sends the new name alone, which other servers do not know
        **_connection(settings.endpoint),
    )


def _connection(asked: ChatSettings) -> dict[str, Any]:
    """The key is read when a request is made."""
    return {
        "base_url": asked.url,
        "api_key": asked.endpoint({}).secret,
        "timeout": asked.timeout,
        "max_retries": asked.max_retries,
        "http_client": quiet_http_client(),
    }


def _unit(vectors: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return scaled


def _document(passage: dict[str, Any], nearness: float) -> Document:
    metadata = {name: value for name, value in passage.items() if name != "text"}
    return Document(page_content=passage["text"], metadata={**metadata, "nearness": nearness})


def _asked_in(row: dict[str, Any]) -> str:
    return str(row[QUESTION])


def _as_context(row: dict[str, Any]) -> str:
    return "\n\n".join(f"[{each.metadata[SOURCE]}] {each.page_content}" for each in row["passages"])


def _sources_of(row: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(each.metadata[SOURCE] for each in row["passages"]))


_question = RunnableLambda(_asked_in)
_context = RunnableLambda(_as_context)
_sources = RunnableLambda(_sources_of)
