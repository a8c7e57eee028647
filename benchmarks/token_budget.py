"""How many padded tokens should go into a batch, for each kind of artifact? The answer is `batching/plan.TOKEN_BUDGET`.

Speed does not depend on what a network has learned, so the default encoder has random weights here; the texts are
the test split of `builtin:docstrings`. All budgets of a kind are measured interleaved;
the ratio is against the one in use.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from mlflow_llmops.batching.plan import TOKEN_BUDGET
from mlflow_llmops.data.load import BUILTIN, load_data
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.measure.speed import measure_speed, speedup
from mlflow_llmops.methods import table
from mlflow_llmops.models.scratch import small_encoder
from mlflow_llmops.names import HARDWARE

BUDGETS = (256, 512, 1024, 2048, 4096, 8192)
METHODS = {"torch": None, "openvino fp32": "export.openvino", "openvino int8": "quantize.int8_static"}
METHODS |= {"onnx fp32": "export.onnx", "onnx int8": "quantize.int8_dynamic"}
SECONDS = 30.0


def main() -> None:
    data = load_data(BUILTIN)
    torch.manual_seed(0)
    encoder = small_encoder(data.train, data.labels)
    shown = Table(title=f"times as fast as the budget in use, 95 % interval; {hardware_tags()[HARDWARE]}")
    for column in ("artifact", "in use", *map(str, BUDGETS)):
        shown.add_column(column)
    for label, method in METHODS.items():
        model = encoder if method is None else table.build(method, {}).apply(encoder, data, Path(tempfile.mkdtemp()))
        used = TOKEN_BUDGET[model.kind]
        scorer = scorer_of(model)
        scorers = {str(budget): replace(scorer, token_budget=budget) for budget in BUDGETS}
        times = measure_speed(
            {name: one.logits for name, one in scorers.items()}, data.test.texts, lambda texts: len(texts), SECONDS
        )
        shown.add_row(label, str(used), *(str(speedup(times[str(used)], times[str(b)])) for b in BUDGETS))
    Console(width=170).print(shown)


if __name__ == "__main__":
    main()
