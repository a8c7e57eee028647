"""`mlflow-llmops <verb>`: a click group made from the table of steps; the only place that prints and exits."""

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from mlflow_llmops import __version__
from mlflow_llmops.errors import LLMOpsError, as_storage_error
from mlflow_llmops.steps import STEPS

if TYPE_CHECKING:
    from mlflow_llmops.steps._options import Outcome
    from mlflow_llmops.steps.parameters import Parameter

SECONDS_TO_SAY_IT = 10
"""A launcher ends all processes of a job as soon as one ends: the first one is to keep and print the error before."""


class _Verbs(click.Group):
    """Commands that are built when they are asked for, so that `--help` imports neither torch nor MLflow."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*STEPS, *sorted(self.commands)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return _command(name) if name in STEPS else super().get_command(ctx, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        texts = {name: step.text for name, step in STEPS.items()}
        texts |= {name: command.get_short_help_str(100) for name, command in sorted(self.commands.items())}
        with formatter.section("Commands"):
            formatter.write_dl(list(texts.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mlflow-llmops")
def main() -> None:
    """Make a language model smaller and faster, and prove it: every verb is an MLflow run.

    The same verbs run as MLflow Project entry points: mlflow run . -e VERB -P option=value
    """


@main.command()
def project() -> None:
    """Print the folder of the MLflow Project, for `mlflow run`."""
    from mlflow_llmops.mlproject import folder

    click.echo(folder())


def _command(verb: str) -> click.Command:
    _quiet()
    from mlflow_llmops.steps.parameters import parameters_of, run

    return _made(verb, STEPS[verb].text, parameters_of(verb), partial(run, verb))


def script(function: Callable[..., "Outcome"]) -> click.Command:
    """The command of a project's own function: options, output and exit codes as a verb's."""
    _quiet()
    from mlflow_llmops.steps.parameters import call, declared

    text = (function.__doc__ or "").partition("\n")[0]
    return _made(function.__name__, text, declared(function), partial(call, function))


def _made(
    name: str, text: str, parameters: "Sequence[Parameter]", work: "Callable[[dict[str, str]], Outcome]"
) -> click.Command:
    options = [
        click.Option(
            [*dict.fromkeys((f"--{parameter.name.replace('_', '-')}", f"--{parameter.name}")), parameter.name],
            help=parameter.text,
            show_default=parameter.default not in (None, ""),
            **_default(parameter.default),
        )
        for parameter in parameters
    ]

    def called(**values: Any) -> None:
        _run(work, values)

    return click.Command(name, params=list(options), callback=called, help=text)


def _default(default: str | None) -> dict[str, Any]:
    """Without one the option must be given (a default of None would be one to click). The name alone, without a value,
    turns on what is off."""
    if default is None:
        return {"required": True}
    return {"default": default, **({"is_flag": False, "flag_value": "True"} if default == "False" else {})}


def _run(work: "Callable[[dict[str, str]], Outcome]", values: dict[str, str]) -> None:
    from rich.console import Console

    from mlflow_llmops.methods._launch import is_main

    if is_main():
        # a run that a scheduler ends says FAILED, and leaves no temporary files
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        outcome = work(values)
    except Exception as error:
        mine = error if isinstance(error, LLMOpsError) else as_storage_error(error)
        if mine is None:
            raise
        if not is_main():
            time.sleep(SECONDS_TO_SAY_IT)
            sys.exit(mine.exit_code)
        for shown in getattr(mine, "shown", ()):
            console.print(shown, soft_wrap=not hasattr(shown, "columns"))
        click.echo(f"Error: {mine}", err=True)
        sys.exit(mine.exit_code)
    for shown in outcome.shown:
        console.print(shown, soft_wrap=not hasattr(shown, "columns"))
    if outcome.run_id:
        console.print(f"run {outcome.run_id}; to see it in the MLflow UI: make ui, or mlflow ui")


def _quiet() -> None:
    """The libraries below us warn of their own future on every call; ours are the lines that a user should see."""
    warnings.filterwarnings("ignore")
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OPENVINO_TELEMETRY": "0",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # local copies take milliseconds
    }.items():
        os.environ.setdefault(name, value)
    import logging

    for noisy in (
        "torch.onnx",
        "nncf",
        "torchao",  # kernels that another torch would have
        "torch.utils._pytree",
        "mlflow.models.model",
        "mlflow.pyfunc",
        "mlflow.utils.requirements_utils",
    ):
        logging.getLogger(noisy).setLevel(logging.ERROR)
