"""What a model takes on disk, and how many numbers it is made of."""

import zlib
from pathlib import Path

from mlflow_llmops import names
from mlflow_llmops.measure.measurement import Measurements
from mlflow_llmops.models.text_model import TextModel, count_parameters

MIB = 2**20


def measure_size(model: TextModel, folder: Path) -> Measurements:
    """`folder` is the saved artifact: every file in it counts, the tokenizer's too."""
    if model.net is not None:
        parameters, nonzero = count_parameters(model.net)
    else:
        parameters, nonzero = model.artifact.parameters, model.artifact.nonzero_parameters
    return {
        names.DISK: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / MIB,
        names.PARAMETERS: float(parameters),
        names.NONZERO_PARAMETERS: float(nonzero),
    }


def measure_sparsity(model: TextModel, folder: Path) -> Measurements:
    """The share of zeros among all parameters, and what zlib makes of the saved artifact's files."""
    counted = measure_size(model, folder)
    values = {name: value for name, value in counted.items() if isinstance(value, float)}
    return {
        names.SPARSITY: 1 - values[names.NONZERO_PARAMETERS] / values[names.PARAMETERS],
        names.COMPRESSED: compressed_mib(folder),
    }


def compressed_mib(folder: Path) -> float:
    """At zlib's usual level, each file by itself."""
    size = 0
    for path in folder.rglob("*"):
        if path.is_file():
            packer = zlib.compressobj()
            with path.open("rb") as file:
                while chunk := file.read(MIB):
                    size += len(packer.compress(chunk))
            size += len(packer.flush())
    return size / MIB
