"""What a causal model answers as an MLflow pyfunc, whatever it runs on."""

from typing import Any

import numpy as np
import pandas as pd

from mlflow_llmops.batching.decoding import Decoding
from mlflow_llmops.batching.generator import TextGenerator
from mlflow_llmops.batching.shared_generator import SharedGenerator
from mlflow_llmops.flavors._column import texts_of
from mlflow_llmops.flavors._counts import counts_of
from mlflow_llmops.flavors._handle import Handle
from mlflow_llmops.flavors._nullable import nullable
from mlflow_llmops.flavors._overload import told_to_servers


class CompletionPredictor:
    """`predict` is what MLflow, its server and its Spark UDF call, from as many threads as they like."""

    def __init__(self, handle: Handle[SharedGenerator]) -> None:
        self._handle = handle

    def counts(self) -> dict[str, int]:
        """How many prompts the memo knew and how many not; how many calls came, in how many runs of the network."""
        return counts_of(self._handle.session)

    def get_raw_model(self) -> "CompletionPredictor":
        """What MLflow's pyfunc wraps, for a server that completes the prompts of many requests together."""
        return self

    def forgetful(self) -> "CompletionPredictor":
        """The same, asking the network for every text: a stopwatch would time the memo."""
        return CompletionPredictor(self._handle.forgetful())

    @property
    def generator(self) -> TextGenerator:
        """The engine itself, for one that gathers and remembers by itself."""
        return self._handle.session.generator

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> "list[str | None] | pd.Series":
        """What follows each prompt, without the prompt; a null gets a null. `params` are those of the signature.

        With nulls it is a Series, in which MLflow's UDF does not make them the word None.
        """
        prompts = texts_of(model_input)
        present = [i for i, prompt in enumerate(prompts) if isinstance(prompt, str)]
        completions: list[str | None] = [None] * len(prompts)
        with told_to_servers():
            written = self._handle.session.complete([prompts[i] for i in present], _decoding(params or {}))
        for i, completion in zip(present, written, strict=True):
            completions[i] = completion
        return completions if len(present) == len(prompts) else nullable(completions, "string")


def _decoding(params: dict[str, Any]) -> Decoding:
    # MLflow hands a list over as an array
    stop = params.get("stop")
    listed = [] if stop is None else [stop] if isinstance(stop, str) else np.asarray(stop).tolist()
    return Decoding(**{**params, "stop": tuple(map(str, listed))})
