"""From a torch network to the folder of an exported graph: what the exporters and quantizers share."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from openvino import frontend
from tqdm.auto import tqdm

from mlflow_llmops.batching.scorer import pad
from mlflow_llmops.engines.artifact import ExportedArtifact
from mlflow_llmops.errors import ArtifactMismatch, MissingExtra, ModelError
from mlflow_llmops.methods._exported_decoder import TOLERANCE, check_reading, decoder_sample
from mlflow_llmops.models.text_model import TextModel, count_parameters

FAMILIES = ("bert", "distilbert", "roberta", "albert", "electra", "mobilebert", "mpnet", "gpt2", "llama")
"""Architectures whose exports are tested; others may work too."""

Exporter = Literal["transformers", "optimum"]
EXPORTER = "who makes the graph; auto: transformers, or optimum-onnx where transformers is too old to have exporters"

UNTRACEABLE = (
    RuntimeError,
    ValueError,
    NotImplementedError,
    frontend.GeneralFailure,
    frontend.OpConversionFailure,
    frontend.OpValidationFailure,
    frontend.NotImplementedFailure,
)
"""What exporters raise where a network has something that the target has not."""

PROBE_LENGTHS = (1, 2, 3, 7, 16, 33, 64, 127, 256, 512)


def exporters() -> Any:
    """`transformers.exporters`, which calls itself experimental. Raises MissingExtra where transformers has none."""
    if find_spec("transformers.exporters") is None:
        raise MissingExtra(
            f"this needs transformers 5.23 or newer, and here is {transformers.__version__}; what works with it are "
            "export.onnx, export.openvino, quantize.int8_static with engine=openvino, and quantize.weight_only"
        )
    return import_module("transformers.exporters")


def chosen(exporter: Exporter | None) -> Exporter:
    """The exporter that "auto" stands for on this machine."""
    return exporter or ("transformers" if find_spec("transformers.exporters") else "optimum")


def export(
    model: TextModel,
    folder: Path,
    kind: str,
    precision: str,
    write: Callable[[Any, dict[str, torch.Tensor]], None],
    runtime: dict[str, str] | None = None,
) -> TextModel:
    """Run `write(network, sample inputs)`, which fills `folder` with a graph, and describe the result beside it, with
    the `runtime`'s settings.

    Raises ModelError where the exporter cannot trace the network.
    """
    net = model.network.eval()
    try:
        with torch.no_grad(), tqdm(total=1, desc=f"exporting to {kind}, {precision}") as bar:
            write(net, decoder_sample(model) if model.task == "text-generation" else _sample(model))
            bar.update()
    except (*UNTRACEABLE, torch.onnx.errors.OnnxExporterError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(
            f"{type(net).__name__} cannot be exported to {kind}: {why}; families that can: {', '.join(FAMILIES)}"
        ) from error
    finally:
        vars(net).pop("forward", None)  # the exporter leaves its patch of this method, undone, on the instance
    model.save_encoder(folder)
    counts = count_parameters(net)
    ExportedArtifact(
        *(kind, model.task, model.labels, model.max_length, model.pad_id, *counts),
        precision=precision,
        end_ids=model.end_ids,
        runtime=runtime or {},
    ).write(folder)
    return replace(model, net=None, folder=folder, kind=kind, stock=True)


def example_ids(model: TextModel, texts: int, tokens: int) -> list[np.ndarray]:
    """Random token ids, the same every time."""
    random = np.random.default_rng(0)
    return [random.integers(0, len(model.tokenizer), tokens) for _ in range(texts)]


def _sample(model: TextModel) -> dict[str, torch.Tensor]:
    """Two rows of differing tokens: a dimension of 1 would be frozen into the graph."""
    width = min(16, model.max_length)
    return {
        "input_ids": torch.randint(0, len(model.tokenizer), (2, width), generator=torch.Generator().manual_seed(0)),
        "attention_mask": torch.ones((2, width), dtype=torch.long),
    }


def check_equal(source: TextModel, exported: TextModel) -> None:
    """Raises ArtifactMismatch where the fp32 graph gives other logits than torch at any of many shapes."""
    if source.task == "text-generation":
        check_reading(source, exported)
        return
    random = np.random.default_rng(0)
    for length in PROBE_LENGTHS:
        if length > source.max_length:
            break
        rows = [random.integers(0, len(source.tokenizer), size) for size in {length, max(1, length // 2)}]
        batch = pad(rows, source.pad_id)
        expected, got = source.run(batch), exported.run(batch)
        allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
        if expected.shape != got.shape or float(np.abs(expected - got).max()) > allowed:
            raise ArtifactMismatch(
                f"the {exported.kind} graph is off torch's by {np.abs(expected - got).max():.2g} at {length} tokens "
                f"({allowed:.2g} is allowed); try the other exporter"
            )
