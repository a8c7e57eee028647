"""A verb on its own: one run with parameters, data, measurements of both models, proof, report and version."""

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import ArtifactMismatch, ConfigError, ModelError
from mlflow_llmops.steps.compress import compress

MEASURED = (names.ACCURACY, names.F1_MACRO, names.TEXTS_PER_S, names.TOKENS_PER_S, names.LATENCY_P50, names.LATENCY_P95)
COUNTED = (names.PEAK_MEMORY, names.COLD_START, names.DISK, names.PARAMETERS, names.NONZERO_PARAMETERS)


@pytest.fixture
def quantized(store, tiny_folder, tiny_data):
    outcome = compress(
        "quantize", "int8_static", str(tiny_folder), str(tiny_data), register_as="tiny", measure_seconds=1, options={}
    )
    return mlflow.get_run(outcome.run_id)


def test_one_run_holds_everything(quantized, tiny_texts):
    metrics, tags = quantized.data.metrics, quantized.data.tags
    for name in MEASURED:
        assert metrics[name + names.LOW] <= metrics[name] <= metrics[name + names.HIGH]
        assert names.BASELINE_PREFIX + name in metrics
    for name in COUNTED:
        assert metrics[name] > 0
        assert metrics[names.BASELINE_PREFIX + name] > 0
    for name in (names.BATCH_DRIFT, names.PADDING_DRIFT):
        assert 0 <= metrics[name] < 1e-4 > metrics[names.BASELINE_PREFIX + name]
    for name in (
        names.SPEEDUP,
        names.RUNTIME_SPEEDUP,
        names.SAME_RUNTIME_SPEEDUP,
        names.QUALITY_CHANGE,
        names.RETAINED,
    ):
        assert metrics[name + names.LOW] <= metrics[name] <= metrics[name + names.HIGH]
    assert metrics[names.SIZE_RATIO] == pytest.approx(metrics[names.DISK] / metrics[names.BASELINE_PREFIX + names.DISK])
    assert quantized.data.params["quantize.int8_static.calibration_texts"] == "128"
    assert tags[names.METHOD] == "quantize.int8_static"
    assert tags[names.RELOADED] == "same outputs"
    assert tags[names.HARDWARE] and tags[names.VERDICT] and tags[names.DATA_FINGERPRINT]
    assert {i.tags[0].value for i in quantized.inputs.dataset_inputs} == {"training", "evaluation"}
    phases = [metrics[phase] for phase in names.PHASES]
    assert all(seconds > 0 for seconds in phases)
    assert sum(phases) <= (quantized.info.end_time - quantized.info.start_time) / 1000
    beyond = metrics[names.PROOF_SECONDS] + metrics[names.TRACKING_SECONDS]
    assert metrics[names.SHARE_BEYOND] == pytest.approx(beyond / sum(phases))
    (output,) = quantized.outputs.model_outputs
    linked = MlflowClient().get_logged_model(output.model_id).metrics
    assert {each.key for each in linked} >= {*MEASURED, *COUNTED, names.BASELINE_PREFIX + names.ACCURACY}
    assert {each.value for each in linked if each.key == names.ACCURACY} == {metrics[names.ACCURACY]}
    assert {each.dataset_digest for each in linked if each.key in MEASURED} == {tiny_texts.test.fingerprint}
    report = mlflow.artifacts.load_text(f"runs:/{quantized.info.run_id}/{names.REPORT}")
    assert "baseline in openvino, fp32" in report  # a change of runtime is a row of its own
    assert "batch drift" in report
    grid = mlflow.artifacts.load_dict(f"runs:/{quantized.info.run_id}/{names.SPEED_GRID}")
    assert grid["models"] == ["baseline", "baseline in openvino, fp32", "quantize.int8_static"]
    assert len(grid["cells"]) + len(grid["left_out"]) == 9
    for cell in grid["cells"]:
        name = f"ratio/speedup_{cell['texts']}x{cell['tokens']}"
        for key, end in (("value", ""), ("low", names.LOW), ("high", names.HIGH)):
            assert metrics[name + end] == pytest.approx(cell["ratios"]["times as fast"][key])
    kept = {file.path for file in MlflowClient().list_artifacts(quantized.info.run_id)}
    assert {names.SPEED_GRID, names.SPEED_GRID_TABLE, names.SPEED_GRID_PNG} <= kept
    version = MlflowClient().get_model_version("tiny", "1")
    assert mlflow.pyfunc.load_model(version.source).predict(["oven and butter"])["label"][0] == "kitchen"


def test_a_model_that_reloads_differently_fails_the_run_and_is_not_registered(
    store, tiny_folder, tiny_data, tiny_model, monkeypatch
):
    """A method that leaves live pruning masks: MLflow saves them without complaint and loads random weights."""
    from copy import deepcopy

    from torch.nn.utils import prune

    from mlflow_llmops.methods.finetune.full import Full

    def leave_masks(self, model, data, folder, seed=0):
        net = deepcopy(model.network)
        prune.l1_unstructured(net.classifier, "weight", amount=0.3)
        return model.with_net(net)

    monkeypatch.setattr(Full, "apply", leave_masks)
    with pytest.raises(ArtifactMismatch):
        compress("finetune", "full", str(tiny_folder), str(tiny_data), register_as="tiny", options={})
    run = mlflow.search_runs(output_format="list")[0]
    assert run.info.status == "FAILED"
    assert "fresh process" in run.data.tags[names.ERROR]
    assert MlflowClient().search_registered_models() == []


def test_a_model_that_does_not_know_the_labels_is_refused_and_not_given_a_random_head(store, tiny_folder):
    rows = ["text,label\n", *(f"the {word} is number {i},{word}\n" for i in range(60) for word in ("car", "kitchen"))]
    (store / "cars.csv").write_text("".join(rows))
    with pytest.raises(ModelError, match="does not know the label 'car' .* finetune it on this data first"):
        compress("export", "openvino", str(tiny_folder), "cars.csv", options={})


def test_the_run_counts_texts_that_left_the_train_split(store, tiny_folder, tiny_data, tmp_path):
    import pandas as pd

    folder = tmp_path / "data"
    folder.mkdir()
    frames = {name: pd.read_csv(tiny_data / f"{name}.csv") for name in ("train", "dev", "test")}
    frames["train"] = pd.concat([frames["train"], frames["test"].head(7)])
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    outcome = compress("export", "openvino", str(tiny_folder), str(folder), measure_seconds=0.5, options={})
    assert mlflow.get_run(outcome.run_id).data.tags[names.OVERLAP] == "7"
    assert any("7 texts stood in more than one split" in str(shown) for shown in outcome.shown)

    outcome = compress(
        "export", "openvino", str(tiny_folder), str(folder), overlap="allow", measure_seconds=0.5, options={}
    )
    run = mlflow.get_run(outcome.run_id)
    assert (run.data.tags[names.OVERLAP], run.data.tags[names.OVERLAP_KEPT]) == ("0", "7")
    assert run.data.params["export.overlap"] == "allow"
    assert any("WARNING: 7 texts" in str(shown) for shown in outcome.shown)


@pytest.mark.slow
def test_what_torch_compile_gives_is_measured_compiled(store, tiny_folder, tiny_data):
    """What is logged is the plain network: whoever loads it compiles it again, and so does the measurement."""
    made = compress("export", "compile", str(tiny_folder), str(tiny_data), measure_seconds=0.5, options={})
    assert made.values["link"].result.model.compiled


def test_batch_sizes_are_measured_where_something_is_to_become_smaller_and_nowhere_else():
    from mlflow_llmops.methods import table
    from mlflow_llmops.steps.compress import _wants_grid

    teacher, quantizer = table.build("finetune.full", {}), table.build("quantize.int8_static", {})
    assert _wants_grid(None, quantizer, labelled=True) and _wants_grid(True, teacher, labelled=True)
    assert not _wants_grid(None, teacher, labelled=True) and not _wants_grid(False, quantizer, labelled=True)
    assert not _wants_grid(None, quantizer, labelled=False)
    with pytest.raises(ConfigError, match="^speed_grid=True: .* text-classification only; leave it at auto"):
        _wants_grid(True, quantizer, labelled=False)


def test_a_runtime_is_not_registered(store, tiny_folder, tiny_data):
    with pytest.raises(ConfigError, match="export.compile measures a runtime and makes no model of its own"):
        compress("export", "compile", str(tiny_folder), str(tiny_data), register_as="comp", options={})
