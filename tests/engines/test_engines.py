"""Engines run a graph on the cores they are told, from several threads at once, and without torch."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper
from openvino import opset13

from mlflow_llmops.engines import ENGINES, default_threads, open_engine
from mlflow_llmops.engines.artifact import DESCRIPTION, ExportedArtifact
from mlflow_llmops.engines.onnxruntime import GRAPH as ONNX_GRAPH
from mlflow_llmops.engines.openvino import GRAPH as OPENVINO_GRAPH
from mlflow_llmops.errors import ModelError

NAMES = ("input_ids", "attention_mask")


def onnx_graph(folder: Path) -> None:
    """(ids times mask) as floats."""
    ports = [helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "tokens"]) for name in NAMES]
    nodes = [
        helper.make_node("Mul", list(NAMES), ["product"]),
        helper.make_node("Cast", ["product"], ["logits"], to=TensorProto.FLOAT),
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["texts", "tokens"])
    graph = helper.make_graph(nodes, "product", ports, [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, str(folder / ONNX_GRAPH))


def openvino_graph(folder: Path) -> None:
    """The same."""
    ports = [opset13.parameter([-1, -1], np.int64, name=name) for name in NAMES]
    for port, name in zip(ports, NAMES, strict=True):
        port.output(0).set_names({name})
    logits = opset13.convert(opset13.multiply(*ports), np.float32)
    openvino.save_model(openvino.Model([logits], ports), str(folder / OPENVINO_GRAPH), compress_to_fp16=False)


@pytest.fixture(params=ENGINES)
def graph(request, tmp_path) -> tuple[str, Path]:
    {"onnx": onnx_graph, "openvino": openvino_graph}[request.param](tmp_path)
    return request.param, tmp_path


def batch(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shape = (int(random.integers(1, 9)), int(random.integers(1, 40)))
    return {"attention_mask": random.integers(0, 2, shape), "input_ids": random.integers(0, 999, shape)}


def test_an_engine_finds_its_inputs_by_name(graph):
    engine = open_engine(*graph)
    inputs = batch(0)
    np.testing.assert_array_equal(engine(inputs), inputs["input_ids"] * inputs["attention_mask"])
    assert engine(inputs).dtype == np.float32
    assert engine.input_names == NAMES


def test_an_engine_may_be_called_from_many_threads(graph):
    engine = open_engine(*graph, threads=2)
    batches = [batch(seed) for seed in range(200)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(engine, batches))
    for inputs, result in zip(batches, results, strict=True):
        np.testing.assert_array_equal(result, inputs["input_ids"] * inputs["attention_mask"])


def test_an_earlier_result_is_not_overwritten(graph):
    engine = open_engine(*graph)
    inputs = batch(1)
    first = engine(inputs)
    kept = first.copy()
    engine({name: array + 1 for name, array in inputs.items()})
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(("wanted", "threads"), [(None, 1), (2, 2)])
def test_an_engine_is_told_its_threads(graph, monkeypatch, wanted, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    engine = open_engine(*graph, threads=wanted)
    if graph[0] == "onnx":
        assert engine.session.get_session_options().intra_op_num_threads == threads
    else:
        assert engine.compiled.get_property("INFERENCE_NUM_THREADS") == min(threads, os.cpu_count())


@pytest.mark.parametrize(
    ("set_to", "threads"), [("5", 5), ("1", 1), (None, None), ("", None), ("0", None), ("many", None)]
)
def test_threads_come_from_the_environment_or_the_affinity(monkeypatch, set_to, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if set_to is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", set_to)
    assert default_threads() == (threads or len(os.sched_getaffinity(0)))


def test_an_unknown_kind_names_the_known(tmp_path):
    with pytest.raises(ModelError, match="'torch'; there are: onnx, openvino"):
        open_engine("torch", tmp_path)


@pytest.mark.parametrize(
    "module",
    ["engines.onnxruntime", "engines.openvino", "engines.artifact", "batching.scorer", "batching.plan"],
)
def test_a_scoring_worker_imports_no_torch(module):
    script = (
        f"import sys, mlflow_llmops.{module}\n"
        "print(*sorted({'torch', 'transformers', 'mlflow', 'pyspark', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


ARTIFACT = ExportedArtifact("onnx", "text-classification", ("no", "yes"), 64, 0, 10, 9, "int8 dynamic")


def test_a_description_is_read_as_written(tmp_path):
    ARTIFACT.write(tmp_path)
    assert ExportedArtifact.read(tmp_path) == ARTIFACT


def test_a_description_of_another_version_is_read(tmp_path):
    ARTIFACT.write(tmp_path)
    path = tmp_path / DESCRIPTION
    path.write_text(path.read_text().replace('"precision": "int8 dynamic"', '"added_later": 1'))
    assert ExportedArtifact.read(tmp_path).precision == "fp32"


def test_a_folder_without_a_description_is_no_exported_model(tmp_path):
    with pytest.raises(ModelError, match=r"holds no exported model \(llmops.json is missing\)"):
        ExportedArtifact.read(tmp_path)
