"""Say before the work what a user should know of it, and what this machine cannot make of it."""

import sys

from tqdm.auto import tqdm

from mlflow_llmops.hardware import lacking, this_cpu
from mlflow_llmops.methods.method import Method
from mlflow_llmops.models.text_model import TextModel


def hardware_warning(name: str, method: Method) -> str:
    """Why the result of `method` will hardly be faster on this machine; empty where nothing speaks against it."""
    found = lacking(method.wants, this_cpu())
    return f"{name}: {found}, so expect little speed-up here, if any" if found else ""


def warn(name: str, method: Method) -> None:
    """On standard error, where progress goes too."""
    said = hardware_warning(name, method)
    if said:
        tqdm.write(f"WARNING: {said}", file=sys.stderr)


def tell(name: str, method: Method, model: TextModel, *more: str) -> str:
    """`more` and the method's own notes on `model`, on standard error too, a line each."""
    notes = [*filter(None, more), *method.notes(model)]
    for note in notes:
        tqdm.write(f"NOTE: {name}: {note}", file=sys.stderr)
    return "\n".join(notes)
