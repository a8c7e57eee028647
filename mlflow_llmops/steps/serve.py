"""Serve a registered version to OpenAI's clients and MLflow's."""

from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Le
from rich.text import Text

from mlflow_llmops.serving.server import serve as run_server
from mlflow_llmops.serving.settings import KEY_VARIABLE, Settings
from mlflow_llmops.steps._options import Outcome


def serve(
    model: Annotated[str, "models:/name@alias (followed when it moves), models:/name/3, runs:/id/model or a folder"],
    host: Annotated[str, "address to listen on; only this machine reaches the default"] = "127.0.0.1",
    port: Annotated[int, "port to listen on; 0: a free one", Ge(0), Le(65535)] = 5001,
    port_file: Annotated[str | None, "file that gets the port once there is one"] = None,
    served_as: Annotated[str | None, "what clients call the model; auto: its registered name, or its folder's"] = None,
    workers: Annotated[int, "processes that answer; from 2 on, one that dies is replaced", Ge(1)] = 1,
    max_waiting: Annotated[int, "requests that may wait in a worker; more get 429", Ge(1)] = 256,
    max_connections: Annotated[int, "connections that a worker keeps open; more get 429", Ge(1)] = 1000,
    timeout: Annotated[float, "seconds that an answer may take; later it is 504", Gt(0)] = 60.0,
    head_seconds: Annotated[
        float, "seconds that a request's head may take, or a connection may wait without one; later it is 408", Gt(0)
    ] = 10.0,
    body_seconds: Annotated[float, "seconds that a request's body may take; later it is 408", Gt(0)] = 10.0,
    max_body_bytes: Annotated[int, "size of a request's body; more is 413", Ge(1)] = 4 * 2**20,
    max_letters: Annotated[int, "letters of a text or prompt; more is 413", Ge(1)] = 100_000,
    max_texts: Annotated[int, "texts of a request; more is 413", Ge(1)] = 2048,
    new_tokens: Annotated[int, "tokens that a chat's answer has where the client does not say", Ge(1)] = 256,
    cache: Annotated[int, "answers that a worker keeps; 0: none", Ge(0)] = 10_000,
    poll_seconds: Annotated[float, "how often the registry is asked whether the alias moved", Gt(0)] = 5.0,
    key_variable: Annotated[
        str, "environment variable with the key that clients must send; empty or not set: none"
    ] = KEY_VARIABLE,
) -> Outcome:
    """Answer until SIGTERM or Ctrl-C. It makes no run: nothing is measured."""
    settings = Settings(
        model=model,
        name=served_as or name_of(model),
        host=host,
        port=port,
        workers=workers,
        max_waiting=max_waiting,
        max_connections=max_connections,
        timeout=timeout,
        head_seconds=head_seconds,
        body_seconds=body_seconds,
        max_letters=max_letters,
        max_texts=max_texts,
        new_tokens=new_tokens,
        cache=cache,
        poll_seconds=poll_seconds,
        key_variable=key_variable,
        body_bytes=max_body_bytes,
    )
    run_server(settings, Path(port_file) if port_file else None)
    return Outcome("", (Text(f"{model} is served no more; what was accepted was answered"),))


def name_of(reference: str) -> str:
    """The registered name in a reference, or the last part of another one."""
    if reference.startswith("models:/"):
        return reference.removeprefix("models:/").split("/")[0].split("@")[0]
    return reference.rstrip("/").rsplit("/", 1)[-1]
