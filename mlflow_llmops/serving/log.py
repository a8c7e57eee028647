"""A server's own lines on standard error, beside uvicorn's, in each of its processes."""

import logging


def show_lines() -> None:
    """From INFO on."""
    ours = logging.getLogger("mlflow_llmops")
    if not ours.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s:     %(message)s"))
        ours.addHandler(handler)
    ours.setLevel(logging.INFO)
