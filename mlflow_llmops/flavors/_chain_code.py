"""The code that MLflow keeps with a chain and runs to load it (models-from-code); nothing imports this file."""

from pathlib import Path

import mlflow

from mlflow_llmops.flavors._chains import build

mlflow.models.set_model(build(Path(__file__).parent / "chain"))
