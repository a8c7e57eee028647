"""What a causal model answers as an MLflow pyfunc, whatever it runs on."""

from typing import Any

import numpy as np

from mlflow_llmops.batching.decoding import Decoding
from mlflow_llmops.batching.generator import TextGenerator
from mlflow_llmops.flavors._column import column


class CompletionPredictor:
    """`predict` is what MLflow, its server and its Spark UDF call."""

    def __init__(self, generator: TextGenerator) -> None:
        self._generator = generator

    def get_raw_model(self) -> "CompletionPredictor":
        """What MLflow's pyfunc wraps, for a server that completes the prompts of many requests together."""
        return self

    @property
    def generator(self) -> TextGenerator:
        return self._generator

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[str | None]:
        """What follows each prompt, without the prompt; a null gets a null. `params` are those of the signature."""
        prompts = column(model_input)
        present = [i for i, prompt in enumerate(prompts) if isinstance(prompt, str)]
        completions: list[str | None] = [None] * len(prompts)
        written = self._generator.complete([prompts[i] for i in present], _decoding(params or {}))
        for i, completion in zip(present, written, strict=True):
            completions[i] = completion.text
        return completions


def _decoding(params: dict[str, Any]) -> Decoding:
    # MLflow hands a list over as an array
    stop = params.get("stop")
    listed = [] if stop is None else [stop] if isinstance(stop, str) else np.asarray(stop).tolist()
    return Decoding(**{**params, "stop": tuple(map(str, listed))})
