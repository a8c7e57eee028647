"""What packed weights cost in quality and give in speed, for causal models: the numbers under `quantize.weight_only`.

Quality: `builtin:decoder`, finetuned for a few minutes on docstrings; the change in held-out log-likelihood against
fp32, paired by text. Speed does not depend on what a network has learned, and a network of that size lies in the
processor's cache: so it is measured on a larger one with random weights, all versions in turn.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from mlflow_llmops import names
from mlflow_llmops.data.load import BUILTIN, load_data
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.measure.generation import measure_generation, prompts_of, writing_gains
from mlflow_llmops.measure.language import language, language_change
from mlflow_llmops.measure.likelihood import Likelihoods, likelihoods
from mlflow_llmops.methods import table
from mlflow_llmops.methods.finetune.full import Full
from mlflow_llmops.models.scratch_decoder import small_decoder
from mlflow_llmops.models.text_model import TextModel

PACKED = "quantize.weight_only"
CALIBRATED = ("rtn", "awq", "scale", "gptq")
QUALITY = {
    "openvino int8": {"bits": 8},
    **{f"openvino int4 {name}": {"algorithm": name} for name in CALIBRATED},
    **{f"openvino int4, groups of 128, {name}": {"algorithm": name, "group_size": 128} for name in CALIBRATED},
    "onnx int8": {"engine": "onnx", "bits": 8},
    **{f"onnx int4 {name}": {"engine": "onnx", "algorithm": name} for name in ("rtn", "hqq")},
}
"""The first of those that differ in their last word alone is the one that rounds."""
SPEED = {
    "openvino fp32": ("export.openvino", {}),
    "openvino int8": (PACKED, {"bits": 8}),
    "openvino int4": (PACKED, {"algorithm": "rtn"}),
    "onnx fp32": ("export.onnx", {}),
    "onnx int8": (PACKED, {"engine": "onnx", "bits": 8}),
    "onnx int4": (PACKED, {"engine": "onnx", "algorithm": "rtn"}),
}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 16, "intermediate_size": 2816}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=6000, help="texts to train on")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--held-out", type=int, default=4000, help="texts to measure quality on")
    parser.add_argument("--seconds", type=float, default=90, help="for measuring speed, all versions together")
    given = parser.parse_args()
    everything = load_data(BUILTIN, label_column=None)
    test = everything.test.pick(range(min(given.held_out, len(everything.test))))
    data = Splits(everything.train.pick(range(given.texts)), everything.dev, test, everything.source)
    torch.manual_seed(0)
    small = Full(epochs=given.epochs, learning_rate=2e-3).apply(small_decoder(data.train), data, Path("unused"), seed=0)
    console = Console(width=150)
    console.print(hardware_tags()[names.HARDWARE])
    console.print(_quality(small, data))
    console.print(_speed(small_decoder(data.train, **LARGE), data, given.seconds))


def _quality(model: TextModel, data: Splits) -> Table:
    texts = data.test.texts
    first = likelihoods(model, texts)
    shown = Table(title=f"quality on {len(texts)} held-out docstrings, 95 % intervals")
    for column in ("version", "perplexity", "nats a token, minus fp32", "retained", "nats a token, minus rtn"):
        shown.add_column(column)
    shown.add_row("torch fp32", str(language(first)[names.PERPLEXITY]))
    rounded: dict[str, Likelihoods] = {}
    for label, options in QUALITY.items():
        found = likelihoods(_made(PACKED, options, model, data), texts)
        change = language_change(first, found, texts)
        family = label.rpartition(" ")[0]
        against = language_change(rounded[family], found, texts)[names.QUALITY_CHANGE] if family in rounded else ""
        rounded.setdefault(family, found)
        cells = (language(found)[names.PERPLEXITY], change[names.QUALITY_CHANGE], change[names.RETAINED], against)
        shown.add_row(label, *map(str, cells))
    return shown


def _speed(model: TextModel, data: Splits, seconds: float) -> Table:
    models = {"torch fp32": model}
    models |= {label: _made(name, options, model, data) for label, (name, options) in SPEED.items()}
    texts = data.test.texts
    times = measure_generation(models, prompts_of(texts), seconds, texts=texts)
    measured = (names.FIRST_TOKEN_P50, names.DECODE_TOKENS_PER_S, names.NEXT_TOKEN_P50)
    ratios = (names.DECODE_SPEEDUP, names.NEXT_TOKEN_SPEEDUP)
    parameters = sum(parameter.numel() for parameter in model.network.parameters()) / 1e6
    shown = Table(title=f"speed of {parameters:.0f} M parameters; times as fast: against fp32 in the same runtime")
    for column in ("version", "MiB", "ms to first token", "tokens/s after it (16 texts)", "ms a token (1 text)"):
        shown.add_column(column)
    for column in ("times as fast (16 texts)", "times as fast (1 text)"):
        shown.add_column(column)
    for label, each in times.items():
        gains = writing_gains(times[f"{label.split()[0]} fp32"], each)
        folder = models[label].folder
        mib = sum(file.stat().st_size for file in folder.iterdir()) / 2**20 if folder else 4 * parameters / 1.048576
        cells = [str(each.measurements()[name]) for name in measured] + [str(gains[name]) for name in ratios]
        shown.add_row(label, f"{mib:.0f}", *cells)
    return shown


def _made(name: str, options: dict[str, object], model: TextModel, data: Splits) -> TextModel:
    return table.build(name, options).apply(model, data, Path(tempfile.mkdtemp()))


if __name__ == "__main__":
    main()
