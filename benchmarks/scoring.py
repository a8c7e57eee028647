"""How fast is a registered version as a Spark UDF, against plain `mlflow.transformers` through the same `spark_udf`?

The same rows, the same session, warm, all ways in turn; the baseline is the best of batch sizes 1, 8 and 32. Speed
does not depend on what a network has learned, so the weights are random, of MiniLM's shape (6 layers, 384 wide).
Each row of a table is written through Spark's `noop` sink, so that nothing but scoring and Spark is timed.
In brackets the lowest and the highest repeat.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import mlflow
import mlflow.pyfunc
import mlflow.transformers
import numpy as np
import psutil
import torch
from pyspark.sql import DataFrame, SparkSession
from rich.console import Console
from rich.table import Table

from mlflow_llmops.data.load import BUILTIN, load_data
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.flavors import exported_text
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.methods import table
from mlflow_llmops.models.scratch import small_encoder
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.names import HARDWARE
from mlflow_llmops.scoring import score
from mlflow_llmops.tracking.signature import SIGNATURES

BATCH_SIZES = (1, 8, 32)
ARTIFACTS = {"fp32, OpenVINO": "export.openvino", "int8 static, OpenVINO": "quantize.int8_static"}
RESULT = "struct<label: string, score: double>"
SHAPE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
Way = Callable[[DataFrame], DataFrame]

COLD = """
import time
start = time.perf_counter()
import sys
import mlflow_llmops.flavors.exported_text as flavor
model = flavor._load_pyfunc(sys.argv[1])
model.predict(["a text"])
sys.stdout.write(str(time.perf_counter() - start))
"""
WAITING = """
import sys
import mlflow_llmops.flavors.exported_text as flavor
model = flavor._load_pyfunc(sys.argv[1]) if sys.argv[2] == "load" else None
if model is not None:
    model.predict(["a text of some words"] * 64)
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.read()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    data = load_data(BUILTIN)
    torch.manual_seed(0)
    encoder = small_encoder(data.train, data.labels, **SHAPE)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    # one thread a task, as many tasks as cores
    os.environ["OMP_NUM_THREADS"] = "1"
    builder = SparkSession.builder.master(f"local[{given.workers}]").config("spark.ui.enabled", "false")
    spark = builder.config("spark.driver.memory", "2g").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    console = Console(width=150)
    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")  # nothing of this is anybody's run
        baselines = _baselines(encoder, Path(folder))
        ours = _ours(encoder, data, Path(folder))
        for said, texts in _tables(data, given.rows).items():
            console.print(_speeds(spark, said, texts, baselines, ours, given.repeats, given.workers))
        console.print(_workers(ours))
    spark.stop()


def _baselines(encoder: TextModel, folder: Path) -> dict[str, str]:
    """Plain transformers-flavor models, one a batch size."""
    found = {}
    for size in BATCH_SIZES:
        place = str(folder / f"plain-{size}")
        mlflow.transformers.save_model(
            {"model": encoder.network, "tokenizer": encoder.tokenizer},
            place,
            task="text-classification",
            signature=SIGNATURES["text-classification"],
            model_config={"batch_size": size, "truncation": True, "max_length": encoder.max_length},
            pip_requirements=["mlflow"],
        )
        found[f"plain, batch size {size}"] = place
    return found


def _ours(encoder: TextModel, data: Splits, folder: Path) -> dict[str, str]:
    found = {}
    for i, (label, method) in enumerate(ARTIFACTS.items()):
        (folder / f"made-{i}").mkdir()
        made = table.build(method, {}).apply(encoder, data, folder / f"made-{i}")
        exported_text.save_model(Path(made.folder or ""), folder / f"ours-{i}")
        found[label] = str(folder / f"ours-{i}")
    return found


def _tables(data: Splits, rows: int) -> dict[str, list[str]]:
    """Skewed lengths with and without duplicates, and lengths that are nearly the same."""
    draw = np.random.default_rng(0)
    texts = list(dict.fromkeys((*data.train.texts, *data.dev.texts, *data.test.texts)))
    draw.shuffle(texts)
    rows = min(rows, len(texts))
    distinct = texts[:rows]
    doubled = distinct[: int(rows * 0.7)]
    doubled = [*doubled, *draw.choice(doubled, rows - len(doubled))]
    draw.shuffle(doubled)
    by_length = sorted(texts, key=len)
    middle = len(by_length) // 2
    even = by_length[max(0, middle - rows // 2) :][:rows]
    draw.shuffle(even)
    return {
        "skewed lengths, 30 % duplicates": doubled,
        "skewed lengths, no duplicates": distinct,
        "near-uniform lengths, no duplicates": even,
    }


def _speeds(
    spark: SparkSession,
    said: str,
    texts: Sequence[str],
    baselines: Mapping[str, str],
    ours: Mapping[str, str],
    repeats: int,
    workers: int,
) -> Table:
    frame = spark.createDataFrame([(text,) for text in texts], "text string").repartition(workers).cache()
    frame.count()
    ways: dict[str, Way] = {label: _stock(spark, uri) for label, uri in {**baselines, **ours}.items()}
    ways |= {f"{label}, scoring.score": _job(uri) for label, uri in ours.items()}
    seconds: dict[str, list[float]] = {label: [] for label in ways}
    bare: dict[str, list[float]] = {label: [] for label in ours}
    parts = [list(part) for part in np.array_split(np.array(texts, dtype=object), workers)]
    with ProcessPoolExecutor(workers) as pool:
        for repeat in range(repeats + 1):  # the first warms up
            for label, way in ways.items():
                start = time.perf_counter()
                way(frame).write.format("noop").mode("overwrite").save()
                seconds[label] += [time.perf_counter() - start] * (repeat > 0)
            for label, uri in ours.items():
                start = time.perf_counter()
                list(pool.map(_bare, [uri] * workers, parts))
                bare[label] += [time.perf_counter() - start] * (repeat > 0)
    frame.unpersist()
    best = min(baselines, key=lambda label: float(np.median(seconds[label])))
    shown = Table(
        title=f"{said}: {len(texts)} rows, {workers} tasks, {repeats} repeats; {hardware_tags()[HARDWARE]}; "
        f"against {best}"
    )
    for column in ("way", "rows/s", "times as fast", "of the bare engine"):
        shown.add_column(column)
    for label in ways:
        gain = np.array(seconds[best]) / np.array(seconds[label])
        engine = bare.get(label.removesuffix(", scoring.score"))
        of_bare = f"{np.median(np.array(engine) / np.array(seconds[label])):.2f}" if engine else ""
        rate = len(texts) / float(np.median(seconds[label]))
        shown.add_row(label, f"{rate:,.0f}", f"{np.median(gain):.2f} [{gain.min():.2f}, {gain.max():.2f}]", of_bare)
    return shown


def _stock(spark: SparkSession, uri: str) -> Way:
    predict = mlflow.pyfunc.spark_udf(spark, uri, result_type=RESULT, env_manager="local")
    return lambda frame: frame.withColumn("prediction", predict("text"))


def _job(uri: str) -> Way:
    return lambda frame: score(frame, uri)


_MODELS: dict[str, exported_text.ExportedText] = {}


def _bare(uri: str, texts: Sequence[str]) -> int:
    """In a process of the pool: the same engine without Spark."""
    if uri not in _MODELS:
        _MODELS[uri] = exported_text.ExportedText(Path(uri) / exported_text.DATA, threads=1)
    return len(_MODELS[uri].predict(list(texts)))


def _workers(ours: Mapping[str, str]) -> Table:
    """Cold start, and what each further worker of a host takes."""
    shown = Table(title="a worker: import, load and first text (best of 3); memory of its own alone")
    for column in ("artifact", "cold start s", "model MiB", "per further worker MiB", "of the model file"):
        shown.add_column(column)
    for label, uri in ours.items():
        data = str(Path(uri) / exported_text.DATA)
        command = [sys.executable, "-c", COLD, data]
        starts = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3)]
        size = max(path.stat().st_size for path in Path(data).iterdir()) / 2**20
        further = _unshared(data, "load") - _unshared(data, "import")
        shown.add_row(label, f"{min(starts):.2f}", f"{size:.1f}", f"{further:.1f}", f"{further / size:.2f}")
    return shown


def _unshared(data: str, what: str) -> float:
    """MiB that only the third of three such processes has."""
    started = [
        subprocess.Popen([sys.executable, "-c", WAITING, data, what], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    try:
        for process in started:
            if process.stdout is not None:
                process.stdout.readline()
        return float(psutil.Process(started[-1].pid).memory_full_info().uss) / 2**20
    finally:
        for process in started:
            process.communicate(b"")


if __name__ == "__main__":
    main()
