"""How fast is int8 on this machine, what does it keep, and what brings it nearer to the hardware's limit?

The model: all-MiniLM-L6-v2 fine-tuned by `distillation.py`, whose `--work` folder holds it. All artifacts score the
same texts of the test split in turn, tokenised on the way, as a user's would; what is tried on top (token budgets,
streams, quantized attention) is measured beside them. Quality is that of the whole test split.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import openvino
from rich.console import Console
from rich.table import Table

from mlflow_llmops.batching.plan import TOKEN_BUDGET, plan_batches
from mlflow_llmops.batching.scorer import TextScorer, pad
from mlflow_llmops.data.load import load_data
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.engines import default_threads
from mlflow_llmops.engines.openvino import GRAPH
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.measure.intervals import quantile_interval, share_change, share_interval, share_ratio
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.measure.speed import measure_speed
from mlflow_llmops.methods import table
from mlflow_llmops.models.load import load
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.names import HARDWARE

BASELINE = "ONNX fp32"
METHODS = {
    BASELINE: ("export.onnx", {}),
    "ONNX fp32, fused": ("export.onnx", {"fusions": True}),
    "ONNX int8 dynamic": ("quantize.int8_dynamic", {}),
    "ONNX int8 static, NNCF": ("quantize.int8_static", {"engine": "onnx"}),
    "ONNX int8 static, minmax": ("quantize.int8_static", {"engine": "onnx", "ranges": "minmax"}),
    "ONNX int8 static, entropy": ("quantize.int8_static", {"engine": "onnx", "ranges": "entropy"}),
    "ONNX int8 static, percentile": ("quantize.int8_static", {"engine": "onnx", "ranges": "percentile"}),
    "OpenVINO fp32": ("export.openvino", {}),
    "OpenVINO fp16": ("quantize.half", {}),
    "OpenVINO int8 static": ("quantize.int8_static", {}),
}
STATIC = "OpenVINO int8 static"
Logits = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Streams:
    """Batches of a text scorer on several cores at once, each core with a stream of its own."""

    scorer: TextScorer
    compiled: openvino.CompiledModel
    streams: int

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        ids = self.scorer.encode(texts)
        batches = plan_batches(np.array([len(item) for item in ids]), self.scorer.token_budget)
        with ThreadPoolExecutor(self.streams) as pool:
            scored = list(pool.map(lambda batch: self._run([ids[i] for i in batch]), batches))
        rows = np.empty((len(ids), scored[0].shape[1]), dtype=np.float32)
        for batch, values in zip(batches, scored, strict=True):
            rows[batch] = values
        return rows

    def _run(self, ids: list[np.ndarray]) -> np.ndarray:
        request = self.compiled.create_infer_request()
        request.infer(pad(ids, self.scorer.pad_id))
        return np.array(request.get_output_tensor(0).data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with clinc150/ and sst2/")
    parser.add_argument("--work", type=Path, default=Path("bench-distillation"), help="where distillation.py kept them")
    parser.add_argument("--sets", default="sst2,clinc150")
    parser.add_argument("--seconds", type=float, default=120.0)
    given = parser.parse_args()
    for name in given.sets.split(","):
        data = load_data(str(given.data / name))
        teacher = load(str(given.work / f"teacher-{name}"))
        with tempfile.TemporaryDirectory() as folder:
            models, tried = _artifacts(teacher, data, Path(folder))
            Console(width=150).print(_table(name, teacher, models, tried, data, given.seconds))


def _artifacts(teacher: TextModel, data: Splits, folder: Path) -> tuple[dict[str, TextModel], dict[str, Logits]]:
    """Those of our methods, and what is tried on top of the fastest."""
    models = {}
    for label, (method, options) in METHODS.items():
        place = folder / label
        place.mkdir()
        models[label] = table.build(method, options).apply(teacher, data, place)
    eager = teacher.with_net(deepcopy(teacher.network))
    eager.network.set_attn_implementation("eager")
    (folder / "eager").mkdir()
    static = table.build(*METHODS[STATIC])
    attention = static.apply(eager, data, folder / "eager")
    best = models[STATIC]
    tried: dict[str, Logits] = {f"{STATIC}, attention too": scorer_of(attention).logits}
    for budget in (512, 8192):
        tried[f"{STATIC}, budget {budget}"] = replace(scorer_of(best), token_budget=budget).logits
    for streams, budget in ((default_threads(), TOKEN_BUDGET["openvino"]), (default_threads(), 512)):
        tried[f"{STATIC}, {streams} streams, budget {budget}"] = Streams(
            replace(scorer_of(best), token_budget=budget), _compiled(best, streams), streams
        ).logits
    return models, tried


def _compiled(model: TextModel, streams: int) -> openvino.CompiledModel:
    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": default_threads(), "NUM_STREAMS": streams, "INFERENCE_PRECISION_HINT": "f32"}
    return core.compile_model(core.read_model(str(Path(model.folder or "") / GRAPH)), "CPU", config)


def _table(
    name: str,
    teacher: TextModel,
    models: dict[str, TextModel],
    tried: dict[str, Logits],
    data: Splits,
    seconds: float,
) -> Table:
    scorers = {"torch fp32": scorer_of(teacher).logits}
    scorers |= {label: scorer_of(model).logits for label, model in models.items()} | tried
    times = measure_speed(scorers, data.test.texts, len, seconds, singles=1)
    lengths = np.array([len(item) for item in scorer_of(teacher).encode(data.test.texts)])
    padded = sum(len(batch) * lengths[batch].max() for batch in plan_batches(lengths, TOKEN_BUDGET["openvino"]))
    right = {label: _right(teacher, logits, data) for label, logits in scorers.items()}
    before = right["torch fp32"]
    shown = Table(
        title=f"{name}: {hardware_tags()[HARDWARE]}; {len(data.test)} test texts, {lengths.sum() / padded:.1%} of the "
        "padded tokens are text; 95 % intervals"
    )
    for column in ("artifact", f"times as fast as {BASELINE}", "accuracy", "of torch's", "minus torch's", "MiB"):
        shown.add_column(column)
    for label in scorers:
        gain = quantile_interval(times[BASELINE].batch / times[label].batch)
        model = models.get(label)
        size = "" if model is None else f"{_bytes(model) / 2**20:.1f}"
        kept, change = share_ratio(before, right[label]), share_change(before, right[label])
        shown.add_row(
            label,
            f"{gain.value:.2f} [{gain.low:.2f}, {gain.high:.2f}]",
            f"{share_interval(right[label]).value:.4f}",
            f"{kept.value:.2%}",
            f"{change.value:+.4f} [{change.low:+.4f}, {change.high:+.4f}]",
            size,
        )
    return shown


def _right(teacher: TextModel, logits: Logits, data: Splits) -> np.ndarray:
    answers = logits(data.test.texts).argmax(axis=1)
    return np.array([teacher.labels[i] == label for i, label in zip(answers, data.test.labels, strict=True)])


def _bytes(model: TextModel) -> int:
    return sum(file.stat().st_size for file in Path(model.folder or "").iterdir())


if __name__ == "__main__":
    main()
