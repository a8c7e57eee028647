"""How fast is a registered version as a Spark UDF, against plain `mlflow.transformers` through the same `spark_udf`?

The same rows, the same session, warm, all ways in turn. The baseline is a pipeline that plain
`mlflow.transformers.log_model` logged, at the best of batch sizes 1, 8 and 32: a third of the rows says which. Each
way's rows go to Spark's `noop` sink, so that nothing but scoring and Spark is timed. A ratio is the median of the
repeats' paired ratios with its 95 % interval, which takes six repeats; with fewer, the brackets hold the lowest and
the highest.

Speed does not depend on what a network has learned: without `--model` its weights are random, of MiniLM's shape (6
layers, 384 wide). Texts are words of docstrings in a row, as many as a log-normal law says (median 24, at most 200),
the near-uniform ones 24 to 28. What remembers answers from one repeat to the next (`memo_rows`) is off.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import mlflow.transformers
import numpy as np
import psutil
import torch
import transformers
import yaml
from pyspark.sql import DataFrame, SparkSession

from mlflow_llmops.data.load import BUILTIN, load_data
from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.flavors import exported_text
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.measure.intervals import quantile_interval
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.measure.turns import turns
from mlflow_llmops.methods import table
from mlflow_llmops.models.load import load
from mlflow_llmops.models.scratch import small_encoder
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.names import HARDWARE
from mlflow_llmops.scoring import score
from mlflow_llmops.tracking.references import MLMODEL
from mlflow_llmops.tracking.signature import SIGNATURES

BATCH_SIZES = (1, 8, 32)
FP32, INT8 = "fp32, OpenVINO", "int8 static, OpenVINO"
ARTIFACTS = {FP32: "export.openvino", INT8: "quantize.int8_static"}
BARE = "bare"
SKEWED = "no duplicates, skewed lengths"
RESULT = "struct<label: string, score: double>"
SHAPE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
MAX_LENGTH = 256
REPEATS_OF_AN_INTERVAL = 6
"""Fewer pairs do not reach 95 %."""
FURTHER = 3
"""The bare engine is compared on so many times the rows: a job's start is no property of its engine."""
Way = Callable[[DataFrame], object]

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


@dataclass(frozen=True)
class Report:
    """Prints each line of the table as soon as it is known, and keeps it where it was told to."""

    kept: Path | None

    def say(self, line: str) -> None:
        print(line, flush=True)
        if self.kept:
            with self.kept.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def row(self, measure: str, least: float | None, found: Estimate, said: str) -> None:
        floor = "" if least is None else f"{least:g}"
        self.say(f"| {measure} | {floor} | **{found.value:.2f}** [{found.low:.2f}, {found.high:.2f}] | {said} |")


@dataclass
class Race:
    """Ways over the same rows in turn, and the seconds of each in each repeat."""

    ways: Mapping[str, Callable[[], object]]
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def run(self, repeats: int) -> "Race":
        """After a round that is not timed; the order is drawn for each."""
        order = turns(self.ways)
        self.seconds = {label: [] for label in self.ways}
        for repeat in range(repeats + 1):
            for label in next(order):
                seconds = _seconds(self.ways[label])
                if repeat:
                    self.seconds[label].append(seconds)
        return self

    def ratio(self, slow: str, fast: str) -> Estimate:
        """How many times as fast the second one is."""
        ratios = np.array(self.seconds[slow]) / np.array(self.seconds[fast])
        if len(ratios) >= REPEATS_OF_AN_INTERVAL:
            return quantile_interval(ratios)
        return Estimate(float(np.median(ratios)), float(ratios.min()), float(ratios.max()))

    def rate(self, label: str, rows: int) -> str:
        return f"{rows / float(np.median(self.seconds[label])):,.0f} rows/s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=REPEATS_OF_AN_INTERVAL)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--model", help="folder of a trained classifier")
    parser.add_argument("--save", type=Path, help="append the lines to this file too")
    given = parser.parse_args()
    os.environ["PYSPARK_PYTHON"] = sys.executable
    # one thread a task, as many tasks as cores
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    report, start = Report(given.save), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")  # nothing of this is anybody's run
        data = load_data(BUILTIN)
        model = load(given.model) if given.model else _random_model(data)
        plain = _plain(model)
        ours = _ours(model, data, Path(folder))
        spark = _spark(given.workers)
        report.say(
            f"\n{given.model or 'random weights, 6 layers, 384 wide'}; {given.rows:,} rows, {given.workers} tasks of "
            f"one thread, {given.repeats} repeats; {hardware_tags()[HARDWARE]}\n"
        )
        report.say("| measure | at least | found | |\n|---|---|---|---|")
        _against_plain(spark, report, data, plain, ours, given)
        _against_bare(spark, report, data, ours[INT8], given)
        spark.stop()
        _workers(report, ours)
    report.say(f"\n{(time.perf_counter() - start) / 60:.1f} minutes in all")


def _spark(workers: int) -> SparkSession:
    builder = SparkSession.builder.master(f"local[{workers}]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.ui.showConsoleProgress", "false")
    spark = builder.config("spark.driver.memory", "2g").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _random_model(data: Splits) -> TextModel:
    """MiniLM's shape with a tokenizer of its own, for texts longer than the built-in model's."""
    torch.manual_seed(0)
    small = small_encoder(data.train, data.labels, **SHAPE)
    config = small.network.config
    config.max_position_embeddings = MAX_LENGTH
    small.tokenizer.model_max_length = MAX_LENGTH
    return TextModel(small.task, small.tokenizer, MAX_LENGTH, small.labels, type(small.network)(config).eval())


def _plain(model: TextModel) -> dict[str, str]:
    """A pipeline as anybody logs it, one for each batch size."""
    pipeline = transformers.pipeline("text-classification", model=model.network, tokenizer=model.tokenizer)
    found = {}
    for size in BATCH_SIZES:
        with mlflow.start_run():
            found[f"plain, batch size {size}"] = mlflow.transformers.log_model(
                pipeline,
                name="plain",
                signature=SIGNATURES["text-classification"],
                model_config={"batch_size": size, "truncation": True, "max_length": model.max_length},
                pip_requirements=["mlflow"],
            ).model_uri
    return found


def _ours(model: TextModel, data: Splits, folder: Path) -> dict[str, str]:
    calibration = Splits(Texts(tuple(_texts(data, 200, seed=1))), data.dev, data.test)
    found = {}
    for i, (label, method) in enumerate(ARTIFACTS.items()):
        (folder / f"made-{i}").mkdir()
        made = table.build(method, {}).apply(model, calibration, folder / f"made-{i}")
        exported_text.save_model(Path(made.folder or ""), folder / f"ours-{i}")
        _without_memo(folder / f"ours-{i}" / MLMODEL)
        found[label] = str(folder / f"ours-{i}")
    return found


def _without_memo(description: Path) -> None:
    """A repeat must not be answered from the one before."""
    written = yaml.safe_load(description.read_text(encoding="utf-8"))
    config = written["flavors"]["python_function"].get("config") or {}
    if "memo_rows" in config:
        config["memo_rows"] = 0
        description.write_text(yaml.safe_dump(written), encoding="utf-8")


def _texts(data: Splits, count: int, seed: int = 0, even: bool = False) -> list[str]:
    """Distinct ones of skewed lengths, or of nearly the same."""
    draw = np.random.default_rng(seed)
    words = _words(data, draw)
    found: dict[str, None] = {}
    while len(found) < count:
        length = draw.integers(24, 29) if even else np.clip(round(draw.lognormal(np.log(24), 0.9)), 1, 200)
        found[" ".join(next(words) for _ in range(int(length)))] = None
    return list(found)


def _words(data: Splits, draw: np.random.Generator) -> Iterator[str]:
    texts = data.train.texts
    while True:
        yield from texts[draw.integers(len(texts))].split()


def _doubled(texts: Sequence[str], share: float = 0.3) -> list[str]:
    """As many, of which this share stand there already."""
    draw = np.random.default_rng(0)
    kept = list(texts[: round(len(texts) * (1 - share))])
    mixed = [*kept, *draw.choice(np.array(kept, dtype=object), len(texts) - len(kept))]
    draw.shuffle(mixed)
    return mixed


def _against_plain(
    spark: SparkSession,
    report: Report,
    data: Splits,
    plain: Mapping[str, str],
    ours: Mapping[str, str],
    given: argparse.Namespace,
) -> None:
    skewed = _texts(data, given.rows)
    rows: list[tuple[str, list[str], dict[str, float | None]]] = [
        ("30 % duplicates, skewed lengths", _doubled(skewed), {FP32: 3.0, INT8: 6.0}),
        (SKEWED, skewed, {FP32: 2.2, INT8: 4.5}),
        ("no duplicates, near-uniform lengths", _texts(data, given.rows, even=True), {INT8: None}),
    ]
    stock = {label: _stock(spark, uri) for label, uri in {**plain, **ours}.items()}
    for said, texts, floors in rows:
        few, frame = _frame(spark, texts[::3], given.workers), _frame(spark, texts, given.workers)
        _written(stock[next(iter(plain))], few.limit(given.workers))()  # imports
        pilot = {label: _seconds(_written(stock[label], few)) for label in plain}
        best = min(pilot, key=lambda label: pilot[label])
        ways = {label: _written(stock[label], frame) for label in (best, *floors)}
        if said == SKEWED:
            ways[f"{INT8}, scoring.score"] = _written(_job(ours[INT8]), frame)
        race = Race(ways).run(given.repeats)
        for label in ways:
            if label != best:
                found, rates = race.ratio(best, label), (race.rate(label, len(texts)), race.rate(best, len(texts)))
                report.row(f"{label}: {said}", floors.get(label), found, f"{rates[0]}; {best}: {rates[1]}")
        for each in (few, frame):
            each.unpersist()


def _against_bare(spark: SparkSession, report: Report, data: Splits, uri: str, given: argparse.Namespace) -> None:
    """The same engine in as many processes and threads, without Spark."""
    texts = _texts(data, given.rows * FURTHER)
    frame = _frame(spark, texts, given.workers)
    parts = [[row["text"] for row in part] for part in frame.rdd.glom().collect()]  # as Spark deals them out
    spark_ways = {"spark_udf": _written(_stock(spark, uri), frame), "scoring.score": _written(_job(uri), frame)}
    with ProcessPoolExecutor(given.workers) as pool:

        def bare() -> object:
            return list(pool.map(_bare, [uri] * len(parts), parts))

        race = Race({BARE: bare, **spark_ways}).run(given.repeats)
    for way, least in {"spark_udf": 0.92, "scoring.score": None}.items():
        rates = f"{race.rate(way, len(texts))}; {BARE}: {race.rate(BARE, len(texts))}"
        report.row(f"{INT8}: {way} over the bare engine", least, race.ratio(BARE, way), rates)
    frame.unpersist()


def _frame(spark: SparkSession, texts: Sequence[str], tasks: int) -> DataFrame:
    frame = spark.createDataFrame([(text,) for text in texts], "text string").repartition(tasks).cache()
    frame.count()
    return frame


def _seconds(way: Callable[[], object]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def _written(way: Callable[[DataFrame], DataFrame], frame: DataFrame) -> Callable[[], object]:
    return lambda: way(frame).write.format("noop").mode("overwrite").save()


def _stock(spark: SparkSession, uri: str) -> Callable[[DataFrame], DataFrame]:
    predict = mlflow.pyfunc.spark_udf(spark, uri, result_type=RESULT, env_manager="local")
    return lambda frame: frame.withColumn("prediction", predict("text"))


def _job(uri: str) -> Callable[[DataFrame], DataFrame]:
    return lambda frame: score(frame, uri)


@cache
def _loaded(uri: str) -> Any:
    return mlflow.pyfunc.load_model(uri)


def _bare(uri: str, texts: Sequence[str]) -> int:
    """In a process of the pool. What the flavor loaded, without what MLflow has around it."""
    return len(_loaded(uri)._model_impl.predict(list(texts)))


def _workers(report: Report, ours: Mapping[str, str]) -> None:
    """Cold start, and what each further worker of a host takes."""
    for label, uri in ours.items():
        data = str(Path(uri) / exported_text.DATA)
        command = [sys.executable, "-c", COLD, data]
        starts = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3)]
        report.say(f"| {label}: cold start of a worker, seconds (best of 3) | at most 1 | **{min(starts):.2f}** | |")
        size = max(path.stat().st_size for path in Path(data).iterdir()) / 2**20
        further = _unshared(data, "load") - _unshared(data, "import")
        said = f"{further:.1f} of {size:.1f} MiB"
        report.say(f"| {label}: memory of a further worker | at most 0.5 | **{further / size:.2f}** | {said} |")


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
