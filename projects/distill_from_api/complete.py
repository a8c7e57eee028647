"""Train a small causal model on texts, then half of it on how an endpoint goes on with their beginnings."""

from pathlib import Path
from typing import Any

import pandas as pd
from label import BaseUrl, Count, EndpointModel, RawTexts

from mlflow_llmops import names
from mlflow_llmops.data.load import BUILTIN, load_data
from mlflow_llmops.models.scratch_decoder import SCRATCH_DECODER
from mlflow_llmops.script import KeyVariable, MeasureSeconds, Outcome, RegisteredModel, Seed, script
from mlflow_llmops.steps.compress import compress
from mlflow_llmops.tracking.run import start_run

TASK = "text-generation"
SAMPLE = Path("build/sample")


def complete(
    endpoint_model: EndpointModel,
    base_url: BaseUrl = None,
    texts: RawTexts = BUILTIN,
    count: Count = 800,
    register_as: RegisteredModel = "completions",
    key_variable: KeyVariable = "OPENAI_API_KEY",
    measure_seconds: MeasureSeconds = 10.0,
    seed: Seed = 0,
) -> Outcome:
    """Train a causal model of one's own on texts and on an endpoint's completions of them."""
    with start_run("complete", {names.TASK: TASK}, {"complete.endpoint_model": endpoint_model}) as run:
        splits = load_data(texts, label_column=None)
        SAMPLE.mkdir(parents=True, exist_ok=True)
        for name, split, wanted in (
            ("train", splits.train, count),
            ("dev", splits.dev, count // 8),
            ("test", splits.test, count // 4),
        ):
            pd.DataFrame({"text": split.texts[:wanted]}).to_csv(SAMPLE / f"{name}.csv", index=False)
        common: dict[str, Any] = {"data": str(SAMPLE), "task": TASK, "measure_seconds": measure_seconds, "seed": seed}
        common["register_as"] = register_as
        whole = compress("finetune", "full", SCRATCH_DECODER, **common)
        options = {"teacher": f"openai:{endpoint_model}", "base_url": base_url or "", "key_variable": key_variable}
        given = {name: value for name, value in options.items() if value}
        first = f"models:/{register_as}/{dict(whole.values or {})['link'].version}"
        taught = compress("distill", "sequence", first, options=given, **common)
    return Outcome(run.info.run_id, taught.shown, taught.values)


if __name__ == "__main__":
    script(complete)()
