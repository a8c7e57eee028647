"""What a model takes on disk, and how many numbers it is made of."""

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
