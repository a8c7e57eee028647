"""Real small things that many tests share: a learnable set of texts and a network that has learned it."""

import random
import shutil
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch
import transformers
from mlflow.tracking import MlflowClient

from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.methods.finetune.full import Full
from mlflow_llmops.methods.table import build
from mlflow_llmops.models.scratch import small_encoder
from mlflow_llmops.models.scratch_decoder import small_decoder
from mlflow_llmops.models.text_model import TextModel

pytest_plugins = ["tests.endpoints", "tests.clusters", "tests.mlflow_server"]

# What it tests lives in an environment of its own, where `make test-optimum` names it.
collect_ignore = [] if int(transformers.__version__.partition(".")[0]) < 5 else ["methods/test_optimum.py"]

TOPICS = {
    "kitchen": ["oven", "butter", "flour", "pan", "spoon", "recipe", "sugar", "dough", "soup", "salt"],
    "sea": ["boat", "harbour", "wave", "sail", "anchor", "fish", "tide", "island", "captain", "rope"],
    "weather": ["rain", "cloud", "storm", "wind", "snow", "forecast", "thunder", "frost", "sun", "fog"],
}
FILLER = [
    "the",
    "a",
    "of",
    "with",
    "and",
    "near",
    "under",
    "old",
    "new",
    "big",
    "small",
    "today",
    "then",
    "we",
    "they",
    "saw",
    "took",
    "made",
    "left",
    "found",
]


def sentences(count: int, seed: int) -> Texts:
    """Distinct texts: fillers, two or three words of their topic, and often one of another."""
    draw = random.Random(seed)
    rows: dict[str, str] = {}
    while len(rows) < count:
        topic = draw.choice(sorted(TOPICS))
        other = draw.choice(sorted(TOPICS))
        words = draw.choices(TOPICS[topic], k=draw.randint(2, 3)) + draw.choices(TOPICS[other], k=draw.randint(0, 1))
        words += draw.choices(FILLER, k=draw.randint(4, 10))
        draw.shuffle(words)
        rows.setdefault(" ".join(words), topic)
    return Texts(tuple(rows), tuple(rows.values()))


@pytest.fixture(scope="session")
def tiny_texts() -> Splits:
    """Three labels; 600 texts to train on, 60 in dev, 120 in test, none twice."""
    rows = sentences(780, seed=0)
    return Splits(rows.pick(range(600)), rows.pick(range(600, 660)), rows.pick(range(660, 780)), "sentences")


@pytest.fixture(scope="session")
def tiny_model(tiny_texts: Splits) -> TextModel:
    """A BERT of two layers, 32 wide, that has learned `tiny_texts`."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    untrained = small_encoder(tiny_texts.train, tiny_texts.labels, vocabulary=300, **shape)
    return Full(epochs=4, batch_size=16, token_dropout=0.1).apply(untrained, tiny_texts, Path("unused"), seed=0)


@pytest.fixture(scope="session")
def hurt_model(tiny_model: TextModel) -> TextModel:
    """`tiny_model` with a channel that is always high where the pooler reads: the same answers, but a range that leaves
    few steps of int8 to all other channels."""
    net = deepcopy(tiny_model.network)
    norm, read = net.bert.encoder.layer[-1].output.LayerNorm, net.bert.pooler.dense
    height, weight = 1200.0, 1e-3
    with torch.no_grad():
        norm.weight[0], norm.bias[0] = 0.0, height
        read.weight[:, 0] = weight
        read.bias -= weight * height
    return tiny_model.with_net(net)


@pytest.fixture(scope="session")
def tiny_decoder(tiny_texts: Splits) -> TextModel:
    """A Llama of two layers, 32 wide, that has learned the words of `tiny_texts`."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    untrained = small_decoder(tiny_texts.train, vocabulary=400, **shape)
    return Full(epochs=6, batch_size=16, learning_rate=5e-3).apply(untrained, tiny_texts, Path("unused"), seed=0)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking database after MLflow's migrations, which take seconds: tests start from a copy of it."""
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real SQLite tracking store and registry of its own, in the folder that the test runs in."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.set_experiment("tests")
    yield tmp_path
    while mlflow.active_run():
        mlflow.end_run("FAILED")
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(before)


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """One for all tests, on two cores; a task that fails is tried again."""
    from mlflow_llmops.scoring.table import spark_session

    session = spark_session("local[2, 2]")
    session.conf.set("spark.sql.shuffle.partitions", "2")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def tiny_folder(tiny_model: TextModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained tiny model, as plain `from_pretrained` reads it."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny_model.save(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_decoder_folder(tiny_decoder: TextModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained tiny causal model, as plain `from_pretrained` reads it."""
    folder = tmp_path_factory.mktemp("tiny-decoder") / "model"
    tiny_decoder.save(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_data(tiny_texts: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_texts` as a folder of CSV files."""
    folder = tmp_path_factory.mktemp("tiny-data")
    for name in ("train", "dev", "test"):
        split: Texts = getattr(tiny_texts, name)
        pd.DataFrame({"text": split.texts, "label": split.labels}).to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def exported_decoder(tiny_decoder: TextModel, tiny_texts: Splits, tmp_path_factory: pytest.TempPathFactory):
    """From a runtime to the trained tiny causal model as its graph with a key-value cache, made once."""

    @cache
    def made(kind: str) -> TextModel:
        folder = tmp_path_factory.mktemp(f"tiny-decoder-{kind}")
        return build(f"export.{kind}", {}).apply(tiny_decoder, tiny_texts, folder)

    return made


@pytest.fixture(scope="session", params=["openvino", "onnx"])
def tiny_exported_decoder(request: pytest.FixtureRequest, exported_decoder) -> TextModel:
    """The same, for tests of every runtime."""
    return exported_decoder(request.param)


@pytest.fixture(scope="session")
def tiny_exported(tiny_model: TextModel, tiny_texts: Splits, tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    """The trained tiny model as an OpenVINO graph."""
    folder = tmp_path_factory.mktemp("tiny-exported")
    return build("export.openvino", {}).apply(tiny_model, tiny_texts, folder)
