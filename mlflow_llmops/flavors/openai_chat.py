"""The MLflow flavor of a prompt to an OpenAI-compatible endpoint: a settings file, and no key.

Spark: MLflow's `spark_udf` puts the driver's OPENAI_API_KEY into the closure that it ships. Name the variable otherwise
(`key_variable`) and set it on the workers, or score with the `score` step, which hides it meanwhile.
"""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow import pyfunc
from mlflow.models import Model
from mlflow.models.model import ModelInfo
from mlflow.utils.environment import _mlflow_conda_env, _PythonEnv

from mlflow_llmops import __version__
from mlflow_llmops.flavors._chat import ChatPredictor, signature_of
from mlflow_llmops.flavors._chat_settings import ChatSettings
from mlflow_llmops.flavors._example import UNASKED, as_example, keep_example, made_up

FLAVOR_NAME = "openai_chat"
DATA = "endpoint"


def get_default_pip_requirements() -> list[str]:
    """The exact versions that a worker needs: the client, MLflow and this package."""
    packages = ("mlflow", "openai", "pandas", "pydantic", "numpy")
    return [*(f"{package}=={version(package)}" for package in packages), f"mlflow-llmops=={__version__}"]


def save_model(
    settings: ChatSettings,
    path: str | os.PathLike[str],
    mlflow_model: Model | None = None,
    pip_requirements: list[str] | None = None,
    metadata: dict[str, Any] | None = None,
    input_example: Any = None,
    validate_serving_input: bool = False,
) -> None:
    """Save how an endpoint is asked as an MLflow model at `path`. Raises ConfigError where the key stands in it."""
    target = Path(path)
    (target / DATA).mkdir(parents=True)
    settings.write(target / DATA)
    model = mlflow_model or Model()
    model.signature = signature_of(settings)
    model.metadata = {**(metadata or {}), "llmops_kind": "endpoint"}
    model.add_flavor(FLAVOR_NAME, data=DATA, task="chat", llmops_version=__version__)
    pyfunc.add_to_model(model, loader_module=__name__, data=DATA, conda_env="conda.yaml", python_env="python_env.yaml")
    requirements = pip_requirements or get_default_pip_requirements()
    keep_example(model, target, as_example(made_up(settings.columns)) if input_example is None else input_example)
    (target / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    environment = _mlflow_conda_env(additional_pip_deps=requirements, install_mlflow=False)
    (target / "conda.yaml").write_text(yaml.safe_dump(environment), encoding="utf-8")
    _PythonEnv.current().to_yaml(str(target / "python_env.yaml"))
    model.save(str(target / "MLmodel"))


def log_model(settings: ChatSettings, name: str = "model", **kwargs: Any) -> ModelInfo:
    """Log it to the active run; keywords as `mlflow.models.Model.log` has them."""
    import mlflow_llmops.flavors.openai_chat as flavor

    return Model.log(artifact_path=None, name=name, flavor=flavor, settings=settings, **UNASKED | kwargs)


def load_model(model_uri: str) -> ChatPredictor:
    """Load a logged or saved model as an object with `predict`."""
    return _load_pyfunc(str(Path(mlflow.artifacts.download_artifacts(model_uri)) / DATA))


def _load_pyfunc(path: str) -> ChatPredictor:
    """MLflow calls this with the folder named `data` in MLmodel."""
    settings = ChatSettings.read(Path(path))
    if settings.trace:
        import mlflow.openai

        mlflow.openai.autolog()
    return ChatPredictor(settings)
