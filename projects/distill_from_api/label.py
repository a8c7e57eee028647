"""Label texts with an endpoint once, train a small model on them, and compare what a thousand texts cost with each."""

import json
from pathlib import Path
from typing import Annotated, Any

import mlflow
import pandas as pd
from annotated_types import Ge
from rich.table import Table

from mlflow_llmops import names
from mlflow_llmops.data.load import BUILTIN, load_data
from mlflow_llmops.data.texts import Texts
from mlflow_llmops.errors import DataError
from mlflow_llmops.script import (
    KeyVariable,
    MaxQualityDrop,
    MeasureSeconds,
    MinSpeedup,
    Model,
    Outcome,
    RegisteredModel,
    Seed,
    script,
)
from mlflow_llmops.steps.compare import compare
from mlflow_llmops.steps.compress import compress
from mlflow_llmops.steps.promote import promote
from mlflow_llmops.steps.register_openai import register_openai
from mlflow_llmops.tracking.run import start_run

LABELLED = Path("build/labelled")

EndpointModel = Annotated[str, "the endpoint's name of its model, as gpt-5-mini"]
BaseUrl = Annotated[str | None, "of the endpoint, as http://host:port/v1; auto: OPENAI_BASE_URL or OpenAI"]
RawTexts = Annotated[str, "data as of the verbs; of its labels only those of the test split are looked at"]
Count = Annotated[int, "texts that are learned from", Ge(10)]


def label(
    endpoint_model: EndpointModel,
    base_url: BaseUrl = None,
    texts: RawTexts = BUILTIN,
    count: Count = 800,
    test_count: Annotated[int, "texts with labels of their own that both are measured on", Ge(10)] = 400,
    prompt_price: Annotated[float, "of a million prompt tokens", Ge(0)] = 0.25,
    completion_price: Annotated[float, "of a million tokens of answers", Ge(0)] = 2.0,
    machine_price: Annotated[float, "of the small model's machine, an hour", Ge(0)] = 0.10,
    model: Model = "builtin:encoder",
    register_as: RegisteredModel = "labels",
    method: Annotated[str, "of quantize, for the small model"] = "int8_static",
    max_quality_drop: MaxQualityDrop = 0.05,
    min_speedup: MinSpeedup = 1.0,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    measure_seconds: MeasureSeconds = 10.0,
    seed: Seed = 0,
) -> Outcome:
    """Train a small model on an endpoint's labels, and compare quality and cost of both."""
    with start_run("distill_from_api", {}, {"label.endpoint_model": endpoint_model, "label.count": count}) as run:
        splits = load_data(texts)
        test = splits.test.pick(range(min(test_count, len(splits.test))))
        answer = {"type": "object", "properties": {"label": {"type": "string", "enum": list(splits.labels)}}}
        asked = register_openai(
            endpoint_model,
            "Which of these labels fits the text?\n\n" + "\n".join(splits.labels) + "\n\nText:\n{text}",
            base_url,
            register_as,
            schema=json.dumps({**answer, "required": ["label"], "additionalProperties": False}),
            max_new_tokens=64,
            key_variable=key_variable,
            prompt_price=prompt_price,
            completion_price=completion_price,
        )
        big = f"models:/{register_as}/{_of(asked)['version']}"
        LABELLED.mkdir(parents=True, exist_ok=True)
        endpoint = mlflow.pyfunc.load_model(big)
        for name, split, wanted in (("train", splits.train, count), ("dev", splits.dev, count // 8)):
            _labelled(endpoint, split, wanted).to_csv(LABELLED / f"{name}.csv", index=False)
        pd.DataFrame({"text": test.texts, "label": test.labels}).to_csv(LABELLED / "test.csv", index=False)

        common: dict[str, Any] = {"data": str(LABELLED), "measure_seconds": measure_seconds, "seed": seed}
        common |= {"register_as": register_as, "speed_grid": False}
        taught = _of(compress("finetune", "full", model, **common))["link"].version
        small = _of(compress("quantize", method, f"models:/{register_as}/{taught}", **common))["link"].version
        compare(register_as, f"{taught},{small}", str(LABELLED), measure_seconds=2 * measure_seconds)
        limits: dict[str, Any] = {"max_quality_drop": max_quality_drop, "min_speedup": min_speedup}
        promoted = promote(register_as, small, names.PRODUCTION, data=str(LABELLED), **limits)

        rows = {"endpoint": _evaluated(big, test), "small": _evaluated(f"models:/{register_as}/{small}", test)}
        costs = {"endpoint": rows["endpoint"][names.COST] / len(test) * 1000}
        costs["small"] = machine_price / 3600 / rows["small"][names.TEXTS_PER_S] * 1000
        for name, cost in costs.items():
            mlflow.log_metric(f"{name}/{names.COST_PER_THOUSAND}", cost)
        shown = _table(rows, costs, len(test))
    return Outcome(run.info.run_id, (shown, *promoted.shown), {"costs": costs, "small": small})


def _of(outcome: Outcome) -> dict[str, Any]:
    return dict(outcome.values or {})


def _labelled(endpoint: Any, split: Texts, wanted: int) -> pd.DataFrame:
    """Texts with the endpoint's labels; those that it failed on are left out. Raises DataError where most are."""
    texts = list(split.texts[:wanted])
    answers = endpoint.predict(texts)
    found = pd.DataFrame({"text": texts, "label": answers["label"]}).dropna()
    if len(found) < len(texts) / 2:
        raise DataError(f"only {len(found)} of {len(texts)} texts were labelled: {answers['error'].dropna().iloc[0]}")
    return found


def _evaluated(model: str, test: Texts) -> dict[str, float]:
    """Quality, and cost or speed, in a nested run of its own."""
    frame = pd.DataFrame({"text": test.texts, "label": test.labels})
    with mlflow.start_run(run_name=f"evaluate {model}", nested=True):
        given: dict[str, Any] = {"targets": "label", "model_type": "classifier", "evaluators": "llmops"}
        found: dict[str, float] = mlflow.models.evaluate(model, frame, **given).metrics
    return found


def _table(rows: dict[str, dict[str, float]], costs: dict[str, float], count: int) -> Table:
    shown = Table(title=f"On {count} texts with labels of their own", title_justify="left")
    for column in ("model", "accuracy", "95 % interval", "cost of 1,000 texts"):
        shown.add_column(column)
    lines = ["| model | accuracy | cost of 1,000 texts |", "|---|---|---|"]
    for name, row in rows.items():
        low, high = row[names.ACCURACY + names.LOW], row[names.ACCURACY + names.HIGH]
        shown.add_row(name, f"{row[names.ACCURACY]:.4f}", f"{low:.4f} to {high:.4f}", f"{costs[name]:.6f}")
        lines.append(f"| {name} | {row[names.ACCURACY]:.4f} [{low:.4f}, {high:.4f}] | {costs[name]:.6f} |")
    mlflow.log_text("\n".join([*lines, ""]), "costs.md")
    return shown


if __name__ == "__main__":
    script(label)()
