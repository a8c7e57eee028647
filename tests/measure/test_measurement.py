"""Numbers keep their intervals until they are stored."""

import json
import math

import pytest

from mlflow_llmops import names
from mlflow_llmops.measure.measurement import Estimate, flat
from mlflow_llmops.measure.size import MIB, measure_size


def test_flat_writes_each_end_beside_its_value():
    metrics = flat({names.ACCURACY: Estimate(0.9, 0.8, 0.95), names.DISK: 12})
    assert metrics == {
        "quality/accuracy": 0.9,
        "quality/accuracy_low": 0.8,
        "quality/accuracy_high": 0.95,
        "size/disk_mib": 12.0,
    }
    assert isinstance(metrics["size/disk_mib"], float)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_flat_leaves_out_what_is_no_number(value):
    assert flat({"a": value, "b": Estimate(1.0, value, 2.0)}) == {"b": 1.0, "b_high": 2.0}


def test_scaled_changes_the_unit_of_all_three():
    assert Estimate(1.0, 0.5, 2.0).scaled(1000) == Estimate(1000.0, 500.0, 2000.0)


def test_size_counts_every_file_and_every_number(tiny_model, tmp_path):
    tiny_model.save(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "more.bin").write_bytes(b"0" * MIB)
    measured = measure_size(tiny_model, tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert measured[names.DISK] == pytest.approx(sum(len(path.read_bytes()) for path in files) / MIB)
    config = json.loads((tmp_path / "config.json").read_text())
    width, units, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    norm = 2 * width
    embeddings = (config["vocab_size"] + config["max_position_embeddings"] + config["type_vocab_size"]) * width + norm
    block = 4 * (width * width + width) + 2 * width * units + units + width + 2 * norm
    head = width * width + width + 3 * width + 3  # the pooler, then the classifier
    assert measured[names.PARAMETERS] == embeddings + layers * block + head
    assert measured[names.NONZERO_PARAMETERS] <= measured[names.PARAMETERS]
