"""LangChain chains in MLflow's own langchain flavor, models-from-code: settings, index and models lie beside the code.

As a pyfunc a chain is run by this package: MLflow's fails the whole batch for one bad row, and knows no nulls.
`mlflow.langchain.load_model` gives the chain itself.
"""

import os
import shutil
import tempfile
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import Array, DataType

from mlflow_llmops import __version__
from mlflow_llmops.errors import MissingExtra, ModelError
from mlflow_llmops.flavors._chain_settings import SETTINGS, WRITER, ChainSettings
from mlflow_llmops.flavors._columns import rows_of
from mlflow_llmops.flavors._example import UNASKED, as_example, keep_example, made_up
from mlflow_llmops.flavors._nullable import nullable

FLAVOR_NAME = "langchain_chain"
DATA, CODE = "chain", "_chain_code.py"
REQUIREMENTS = ("mlflow", "langchain", "langchain-openai", "langchain-text-splitters", "openai", "pandas", "numpy")


def check_extra() -> None:
    """Raises MissingExtra where LangChain is not installed."""
    needed = ("langchain", "langchain_openai", "langchain_text_splitters")
    if missing := [package for package in needed if find_spec(package) is None]:
        raise MissingExtra(f"register_chain needs {missing[0]}: pip install 'mlflow-llmops[langchain]'")


def signature_of(settings: ChainSettings) -> ModelSignature:
    """One column without a name where the chain has one, so that a list and a column of any name fit."""
    columns = settings.columns
    inputs: list[Any] = [ColSpec("string", None if len(columns) == 1 else name) for name in columns]
    sources = [ColSpec(Array(DataType.string), "sources", required=False)] if settings.chain == "rag" else []
    outputs: list[Any] = [
        ColSpec("string", "answer", required=False),
        *sources,
        ColSpec("string", "error", required=False),
    ]
    return ModelSignature(Schema(inputs), Schema(outputs))


def save_model(
    chain: Path,
    path: str | os.PathLike[str],
    mlflow_model: Model | None = None,
    metadata: dict[str, Any] | None = None,
    input_example: Any = None,
    validate_serving_input: bool = False,
) -> None:
    """Save the folder of a chain (`chain.json`, and its index, encoder and model) as an MLflow model at `path`."""
    check_extra()
    import mlflow.langchain

    settings = ChainSettings.read(chain)
    saved = mlflow_model or Model()
    kind = "chain" if settings.endpoint is None else "endpoint"
    with tempfile.TemporaryDirectory(prefix="llmops-chain-") as folder:
        # MLflow runs the code to look at the chain, so all that it reads must lie beside it
        code = Path(folder) / CODE
        shutil.copy(Path(__file__).with_name(CODE), code)
        (Path(folder) / DATA).symlink_to(chain.resolve(), target_is_directory=True)
        mlflow.langchain.save_model(
            str(code),
            str(path),
            mlflow_model=saved,
            signature=signature_of(settings),
            pip_requirements=_requirements(chain),
            metadata={**(metadata or {}), "llmops_kind": kind},
            streamable=False,
        )
    shutil.copytree(chain, Path(path) / DATA)
    keep_example(saved, path, as_example(made_up(settings.columns)) if input_example is None else input_example)
    saved.add_flavor(FLAVOR_NAME, data=DATA, task="chain", chain=settings.chain, llmops_version=__version__)
    saved.flavors["python_function"]["loader_module"] = __name__
    # only the name counts, and the folder that it was in is gone
    saved.flavors["python_function"]["model_code_path"] = CODE
    saved.save(str(Path(path) / "MLmodel"))


def log_model(chain: Path, name: str = "model", **kwargs: Any) -> ModelInfo:
    """Log it to the active run; keywords as `mlflow.models.Model.log` has them."""
    import mlflow_llmops.flavors.langchain_chain as flavor

    return Model.log(artifact_path=None, name=name, flavor=flavor, chain=chain, **UNASKED | kwargs)


def load_model(model_uri: str) -> "ChainPredictor":
    """Load a logged or saved model as an object with `predict`."""
    import mlflow

    return _load_pyfunc(mlflow.artifacts.download_artifacts(model_uri))


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> "ChainPredictor":
    """MLflow calls this with the folder of the artifact."""
    check_extra()
    # as the code beside it does; MLflow's loader would also link all later metrics of the process to this model
    predictor = ChainPredictor(Path(path) / DATA)
    if predictor.settings.trace:
        import mlflow.langchain

        mlflow.langchain.autolog()
    return predictor


class ChainPredictor:
    """`predict` is what MLflow, its server and its Spark UDF call."""

    def __init__(self, folder: Path) -> None:
        from mlflow_llmops.flavors import _chains

        self.settings, self._folder = ChainSettings.read(folder), folder
        self._chain = _chains.build(folder)

    def get_raw_model(self) -> "ChainPredictor":
        """For `PyFuncModel.get_raw_model`."""
        return self

    def requests(self, model_input: Any) -> list[str]:
        """A hash of what the chain's model is told for each row, with all settings."""
        from mlflow_llmops.flavors import _chains

        told = _chains.asked_of(self._folder)
        settings = (self._folder / SETTINGS).read_text(encoding="utf-8")
        rows = [row for row in rows_of(model_input, self.settings.columns) if isinstance(row, dict)]
        return [sha256(f"{settings}{told.invoke(row).to_string()}".encode()).hexdigest() for row in rows]

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A row for each row: the answer, for retrieval its sources, and the error of one that failed; equal rows are
        asked once."""
        rows = rows_of(model_input, self.settings.columns)
        distinct = {tuple(row.values()): row for row in rows if isinstance(row, dict)}
        config: Any = {"max_concurrency": self.settings.concurrency}
        answers = self._chain.batch(list(distinct.values()), config=config, return_exceptions=True)
        found = {key: self._told(answer) for key, answer in zip(distinct, answers, strict=True)}
        told = [found[tuple(row.values())] if isinstance(row, dict) else {"error": row} for row in rows]
        types = {
            "answer": "string",
            **({"sources": "array"} if self.settings.chain == "rag" else {}),
            "error": "string",
        }
        return pd.DataFrame({name: nullable([each.get(name) for each in told], type_) for name, type_ in types.items()})

    def _told(self, answer: Any) -> dict[str, Any]:
        if isinstance(answer, Exception):
            return {"error": self._explained(answer)}
        return dict(answer) if isinstance(answer, dict) else {"answer": answer}

    def _explained(self, error: Exception) -> str:
        from openai import OpenAIError

        from mlflow_llmops.endpoint.client import explained
        from mlflow_llmops.errors import LLMOpsError

        asked = self.settings.endpoint or self.settings.embeddings
        if isinstance(error, LLMOpsError):
            raise error  # as a key that is not set: it is of no row
        if isinstance(error, OpenAIError) and asked is not None:
            return explained(error, asked.endpoint({}))
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def check_writer(folder: Path, reference: str) -> None:
    """Raises ModelError where the MLflow model in `folder` is no writer of text."""
    flavors = Model.load(folder).flavors
    if not any(flavor.get("task") == "text-generation" for flavor in flavors.values()):
        raise ModelError(f"model={reference} writes no text; give a version of a causal model (task text-generation)")


def _requirements(chain: Path) -> list[str]:
    """Those of the model inside as well."""
    required = [f"{package}=={version(package)}" for package in REQUIREMENTS]
    inside = chain / WRITER / "requirements.txt"
    if inside.is_file():
        required += inside.read_text(encoding="utf-8").split()
    if (chain / "encoder").is_dir():
        required += [f"{package}=={version(package).partition('+')[0]}" for package in ("torch", "transformers")]
    return list(dict.fromkeys([*required, f"mlflow-llmops=={__version__}"]))
