"""Make a language model smaller and faster, and prove it, inside MLflow.

This file runs inside `import mlflow` (the plugins live in this package), so it imports nothing heavy:
the public names are loaded on first use (PEP 562).
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "load_model": "mlflow_llmops.tracking.references:load_model",
    "load_data": "mlflow_llmops.data.load:load_data",
    "Method": "mlflow_llmops.methods.method:Method",
    "methods": "mlflow_llmops.methods.table:names",
    "TextModel": "mlflow_llmops.models.text_model:TextModel",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
