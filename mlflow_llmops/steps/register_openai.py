"""Register a prompt to an OpenAI-compatible endpoint as a version of a model."""

from typing import Annotated

import mlflow
from annotated_types import Ge, Gt, Le
from rich.text import Text

from mlflow_llmops import names
from mlflow_llmops.flavors import openai_chat
from mlflow_llmops.flavors._chat import ChatPredictor
from mlflow_llmops.flavors._chat_settings import ChatSettings, refuse_key
from mlflow_llmops.flavors._example import as_example
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
from mlflow_llmops.tracking.reload_rows import Rows
from mlflow_llmops.tracking.run import log_params, start_run


def register_openai(
    endpoint_model: Annotated[str, "the endpoint's name of its model, as gpt-5-mini"],
    prompt: Annotated[str, "template with {column} where a column's value goes, or @file"],
    base_url: Annotated[str | None, "of the endpoint, as http://host:port/v1; auto: OPENAI_BASE_URL or OpenAI"] = None,
    register_as: RegisterAs = None,
    system: Annotated[str | None, "system prompt, or @file; auto: none"] = None,
    schema: Annotated[str | None, "JSON schema of the answer, or @file; its properties become columns"] = None,
    temperature: Annotated[float | None, "0: the likeliest words; auto: the endpoint's own", Ge(0)] = 0.0,
    max_new_tokens: Annotated[int, "longest answer", Ge(1)] = 256,
    top_p: Annotated[float | None, "share of likely words to draw from; auto: the endpoint's", Gt(0), Le(1)] = None,
    stop: Annotated[str | None, "text that ends the answer; auto: none"] = None,
    sampling_seed: Annotated[int | None, "sent with each request, where the endpoint knows seeds", Ge(0)] = None,
    extra: Annotated[str | None, "JSON object of further fields of each request; auto: none"] = None,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    concurrency: Concurrency = 4,
    timeout: Timeout = 60.0,
    max_retries: MaxRetries = 5,
    remember: Annotated[int, "answers that a process keeps for prompts that come again; 0: none", Ge(0)] = 10_000,
    prompt_price: Annotated[float | None, "of a million prompt tokens, for column cost; auto: unknown", Ge(0)] = None,
    completion_price: Annotated[float | None, "of a million tokens of answers; auto: unknown", Ge(0)] = None,
    max_requests: Annotated[int | None, "requests that a process may send with this model; auto: any", Ge(1)] = None,
    max_tokens: Annotated[int | None, "tokens that a process may spend, both ways; auto: any", Ge(1)] = None,
    max_cost: Annotated[float | None, "what a process may spend, in the prices' currency; auto: any", Gt(0)] = None,
    trace: Trace = False,
    examples: Examples = None,
    example_rows: ExampleRows = 3,
) -> Outcome:
    """Log a pyfunc around an endpoint, ask it some examples from a fresh process too, and register it."""
    params = {"register_openai.endpoint_model": endpoint_model, "register_openai.register_as": register_as}
    with start_run("register_openai", {names.VERB: "register_openai"}, {}) as run:
        refuse_key(key_variable, *filter(None, params.values()))
        log_params(params)
        if register_as is not None:
            check_name(register_as)
        settings = ChatSettings(
            model=endpoint_model,
            prompt=text_or_file("prompt", prompt),
            base_url=base_url,
            key_variable=key_variable,
            system=None if system is None else text_or_file("system", system),
            schema=None if schema is None else text_or_file("schema", schema),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            stop=(stop,) if stop else (),
            seed=sampling_seed,
            extra=extra,
            concurrency=concurrency,
            timeout=timeout,
            max_retries=max_retries,
            remember=remember,
            prompt_price=prompt_price,
            completion_price=completion_price,
            max_requests=max_requests,
            max_tokens=max_tokens,
            max_cost=max_cost,
            trace=trace,
        )
        settings.refuse_key(*map(str, vars(settings).values()))  # some are parameters of the run
        rows = examples_of(examples, settings.columns, example_rows)
        settings.endpoint({}).secret()  # nothing is logged that nobody could ask
        log_params({f"register_openai.{name}": value for name, value in vars(settings).items() if name in SHOWN})
        info = openai_chat.log_model(settings, name=names.MODEL, input_example=as_example(rows))
        model = ChatPredictor(settings)
        asked, said = prove(model, info.model_uri, rows, repeatable=False)
        mlflow.log_metrics(_spent(asked, settings.priced), model_id=info.model_id)
        tags = {names.KIND: "endpoint", names.ENDPOINT: f"{settings.model} at {settings.url}", names.RELOADED: said}
        mlflow.set_tags(tags)
        version = None if register_as is None else register(info.model_uri, register_as, tags)
    told = [f"{settings.model} at {settings.url}: {said}", f"model: {info.model_uri}"]
    told += [f"registered as version {version}"] if version else []
    shown = examples_table(rows, asked), Text("\n".join(told))
    return Outcome(run.info.run_id, shown, {"version": version, "model_uri": info.model_uri, "rows": asked})


SHOWN = ("base_url", "prompt", "key_variable", "temperature", "max_new_tokens", "concurrency", "timeout", "max_retries")
"""What the UI's table of parameters has; the rest stands in the artifact."""


def _spent(asked: Rows, priced: bool) -> dict[str, float]:
    """Of the examples in memory; the fresh process asked them once more."""
    calls = len(set(asked.requests))
    tokens = {
        names.CALL_PROMPT_TOKENS: sum(row["prompt_tokens"] for row in asked.rows),
        names.CALL_COMPLETION_TOKENS: sum(row["completion_tokens"] for row in asked.rows),
    }
    if not priced:
        return {names.CALLS: calls, **tokens}
    cost = sum(row["cost"] for row in asked.rows)
    return {names.CALLS: calls, **tokens, names.COST: cost, names.COST_PER_CALL: cost / calls}
