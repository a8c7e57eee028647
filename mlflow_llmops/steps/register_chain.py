"""Register a LangChain chain: a prompt to a model, or answers from a folder of documents with their sources."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import mlflow
from annotated_types import Ge
from rich.text import Text

from mlflow_llmops import names
from mlflow_llmops.data.documents import load_documents
from mlflow_llmops.errors import ConfigError, ModelError
from mlflow_llmops.flavors import langchain_chain
from mlflow_llmops.flavors._chain_settings import ENCODER, INDEX, WRITER, ChainSettings
from mlflow_llmops.flavors._chat_settings import ChatSettings, refuse_key
from mlflow_llmops.flavors._example import as_example
from mlflow_llmops.models.embedder import check_no_own_code, copy_embedder, save_embedder
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.registry.versions import check_name, register
from mlflow_llmops.steps._examples import examples_of, examples_table, prove
from mlflow_llmops.steps._options import (
    Concurrency,
    ExampleRows,
    Examples,
    KeyVariable,
    MaxRetries,
    Outcome,
    RegisterAs,
    Timeout,
    Trace,
    text_or_file,
)
from mlflow_llmops.tracking.lineage import torch_origin
from mlflow_llmops.tracking.loaded import load_model
from mlflow_llmops.tracking.references import MLMODEL, SCHEMES, download
from mlflow_llmops.tracking.run import log_params, start_run

OPENAI = "openai:"


def register_chain(
    model: Annotated[str, "openai:MODEL of an endpoint, or a version of a causal model of ours, as models:/writer/3"],
    chain: Annotated[Literal["translate", "rag"], "prompt to model to parser, or retrieval from documents before"] = (
        "translate"
    ),
    register_as: RegisterAs = None,
    prompt: Annotated[
        str | None,
        "template, or @file; for rag with {context} and {question}; auto: English to French, or answers from passages",
    ] = None,
    system: Annotated[str | None, "system prompt, or @file; auto: none"] = None,
    base_url: Annotated[str | None, "of the endpoint, as http://host:port/v1; auto: OPENAI_BASE_URL or OpenAI"] = None,
    temperature: Annotated[float | None, "0: the likeliest words; auto: the endpoint's own", Ge(0)] = 0.0,
    max_new_tokens: Annotated[int, "longest answer", Ge(1)] = 256,
    documents: Annotated[str | None, "folder of .txt, .md and .rst files that rag answers from"] = None,
    embeddings: Annotated[
        str | None, "openai:MODEL of an endpoint, or an encoder: folder, Hugging Face id, models:/name/3"
    ] = None,
    embeddings_url: Annotated[str | None, "of the embeddings' endpoint; auto: base_url"] = None,
    passage_size: Annotated[int, "letters of a passage that documents are cut into", Ge(20)] = 800,
    passage_overlap: Annotated[int, "letters that a passage repeats of the one before", Ge(0)] = 100,
    top_k: Annotated[int, "passages that a question gets", Ge(1)] = 4,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    concurrency: Concurrency = 4,
    timeout: Timeout = 60.0,
    max_retries: MaxRetries = 5,
    trace: Trace = False,
    examples: Examples = None,
    example_rows: ExampleRows = 3,
) -> Outcome:
    """Log a chain with all that it needs, ask it some examples from a fresh process too, and register it."""
    params: dict[str, Any] = {"model": model, "chain": chain, "register_as": register_as}
    params |= {"documents": documents, "embeddings": embeddings, "passage_size": passage_size, "top_k": top_k}
    prefixed = {f"register_chain.{name}": value for name, value in params.items()}
    with (
        start_run("register_chain", {names.VERB: "register_chain"}, {}) as run,
        tempfile.TemporaryDirectory(prefix="llmops-chain-") as temporary,
    ):
        refuse_key(key_variable, *map(str, params.values()))
        log_params(prefixed)
        langchain_chain.check_extra()
        if register_as is not None:
            check_name(register_as)
        if chain != "rag" and (documents or embeddings):
            raise ConfigError(
                f"chain={chain} reads no documents; give chain=rag, or leave documents and embeddings out"
            )
        if chain == "rag" and (documents is None or embeddings is None):
            raise ConfigError("chain=rag needs documents, a folder, and embeddings, an encoder or openai:MODEL")
        if passage_overlap >= passage_size:
            raise ConfigError(f"passage_overlap={passage_overlap}: give less than passage_size={passage_size}")

        def asked(name: str, url: str | None) -> ChatSettings:
            connection = {"key_variable": key_variable, "timeout": timeout, "max_retries": max_retries}
            sampling = {"temperature": temperature, "max_new_tokens": max_new_tokens, "concurrency": concurrency}
            return ChatSettings(name.removeprefix(OPENAI), "{text}", base_url=url, **connection, **sampling)  # type: ignore[arg-type]

        settings = ChainSettings(
            chain=chain,
            endpoint=asked(model, base_url) if model.startswith(OPENAI) else None,
            prompt=text_or_file("prompt", prompt or ""),
            system=None if system is None else text_or_file("system", system),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            concurrency=concurrency,
            top_k=top_k,
            embeddings=asked(embeddings, embeddings_url or base_url)
            if chain == "rag" and embeddings and embeddings.startswith(OPENAI)
            else None,
            trace=trace,
        )
        for endpoint in (settings.endpoint, settings.embeddings):
            if endpoint is not None:
                endpoint.endpoint({}).secret()  # nothing is logged that nobody could ask
        if settings.endpoint is not None:
            log_params({"register_chain.base_url": base_url})  # without a password by now
        rows = examples_of(examples, settings.columns, example_rows)
        folder = Path(temporary) / "chain"
        folder.mkdir()
        settings.write(folder)
        lineage = {}
        if settings.endpoint is None:
            lineage = _copy_writer(model, folder / WRITER)
        passages = 0
        if chain == "rag" and documents and embeddings:
            passages = _index(settings, documents, embeddings, passage_size, passage_overlap, folder)
            mlflow.log_metric(names.PASSAGES, passages)
        info = langchain_chain.log_model(folder, name=names.MODEL, input_example=as_example(rows))
        repeatable = settings.endpoint is None and settings.embeddings is None
        given, said = prove(langchain_chain.ChainPredictor(folder), info.model_uri, rows, repeatable)
        answers = f"{settings.endpoint.model} at {settings.endpoint.url}" if settings.endpoint else model
        tags = {names.KIND: "chain", names.CHAIN: f"langchain.{chain}", names.RELOADED: said, **lineage}
        tags |= {names.ENDPOINT: answers} if settings.endpoint else {}
        mlflow.set_tags(tags)
        version = None if register_as is None else register(info.model_uri, register_as, tags)
    told = [f"{chain} with {answers}: {said}", f"model: {info.model_uri}"]
    told += [f"{passages} passages of {documents} in its index"] if passages else []
    told += [f"registered as version {version}"] if version else []
    shown = examples_table(rows, given), Text("\n".join(told))
    return Outcome(run.info.run_id, shown, {"version": version, "model_uri": info.model_uri, "rows": given})


def _copy_writer(reference: str, folder: Path) -> dict[str, str]:
    """The whole version lies in the chain, so that it needs no registry; gives what it is, since an alias moves."""
    if not reference.startswith(SCHEMES):
        raise ModelError(f"model={reference}: give openai:MODEL, or a version in MLflow as models:/writer/3")
    source = download(reference)
    if not (source / MLMODEL).is_file():
        raise ModelError(f"model={reference}: no MLflow model lies there")
    langchain_chain.check_writer(source, reference)
    shutil.copytree(source, folder)
    model_id = mlflow.models.Model.load(str(source)).model_id
    return {names.SOURCE_MODEL: reference, **({names.SOURCE_MODEL_ID: model_id} if model_id else {})}


def _encoder(reference: str) -> TextModel:
    """Raises ModelError for an exported graph, which gives its answers and not what they come from, and for code."""
    check_no_own_code(download(reference) / "model", reference)
    found = load_model(reference, task=None)
    if found.model.net is None:
        origin = torch_origin(found.model_id)
        raise ModelError(
            f"embeddings={reference} is a graph of kind {found.model.kind}, which gives its answers alone; give the "
            f"torch model that it was made from{f': {origin}' if origin else ''}"
        )
    return found.model


def _index(settings: ChainSettings, documents: str, embeddings: str, size: int, overlap: int, folder: Path) -> int:
    """The encoder and the index, beside the settings. Gives the number of passages."""
    from openai import OpenAIError

    from mlflow_llmops.endpoint.client import explained
    from mlflow_llmops.flavors import _chains

    found = load_documents(documents)
    if settings.embeddings is None:
        if embeddings.startswith(SCHEMES):
            save_embedder(_encoder(embeddings), folder / ENCODER)
        else:
            copy_embedder(embeddings, folder / ENCODER)
    try:
        return _chains.index(found, _chains.embeddings_of(settings, folder), size, overlap, folder / INDEX)
    except OpenAIError as error:
        if settings.embeddings is None:
            raise
        raise ModelError(explained(error, settings.embeddings.endpoint({}))) from error
