"""The MLflow flavor of exported models: a graph, its tokenizer, and nothing of torch or transformers.

Same signature and output columns as the pyfunc of the transformers flavor: one can replace the other.
"""

import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow import pyfunc
from mlflow.models import Model
from mlflow.models.model import ModelInfo
from mlflow.models.signature import ModelSignature
from mlflow.utils.environment import _mlflow_conda_env, _PythonEnv
from tokenizers import Tokenizer

from mlflow_llmops import __version__
from mlflow_llmops.batching.generator import TextGenerator
from mlflow_llmops.batching.options import EngineOptions
from mlflow_llmops.batching.plan import TOKEN_BUDGET
from mlflow_llmops.batching.scorer import TextScorer
from mlflow_llmops.batching.shared_generator import SharedGenerator
from mlflow_llmops.batching.shared_scorer import SharedScorer
from mlflow_llmops.engines import open_decoder, open_engine
from mlflow_llmops.engines.artifact import TOKENIZER, ExportedArtifact
from mlflow_llmops.flavors._completions import CompletionPredictor
from mlflow_llmops.flavors._example import UNASKED, keep_example
from mlflow_llmops.flavors._handle import Handle
from mlflow_llmops.flavors._labels import Labelling, LabelPredictor
from mlflow_llmops.tracking.signature import SIGNATURES

FLAVOR_NAME = "exported_text"
DATA = "artifact"
RUNTIME = {"onnx": "onnxruntime", "openvino": "openvino"}


def get_default_pip_requirements(kind: str) -> list[str]:
    """The exact versions that a worker needs: the graph's runtime, tokenizers, numpy, MLflow and this package."""
    packages = ("mlflow", RUNTIME[kind], "tokenizers", "numpy", "pandas")
    return [*(f"{package}=={version(package)}" for package in packages), f"mlflow-llmops=={__version__}"]


def save_model(
    exported: Path,
    path: str | os.PathLike[str],
    mlflow_model: Model | None = None,
    signature: ModelSignature | None = None,
    pip_requirements: list[str] | None = None,
    metadata: dict[str, Any] | None = None,
    input_example: Any = None,
    validate_serving_input: bool = False,
) -> None:
    """Save the folder of an exported model (graph, `tokenizer.json`, `llmops.json`) as an MLflow model at `path`."""
    artifact = ExportedArtifact.read(Path(exported))
    target = Path(path)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copytree(exported, target / DATA)
    model = mlflow_model or Model()
    model.signature = signature or SIGNATURES[artifact.task]
    model.metadata = {**(metadata or {}), "llmops_kind": artifact.kind}
    model.add_flavor(FLAVOR_NAME, kind=artifact.kind, task=artifact.task, data=DATA, llmops_version=__version__)
    pyfunc.add_to_model(
        model,
        loader_module=__name__,
        data=DATA,
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        model_config=defaults_of(artifact).stored(),
    )
    requirements = pip_requirements or get_default_pip_requirements(artifact.kind)
    keep_example(model, target, input_example)
    (target / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    environment = _mlflow_conda_env(additional_pip_deps=requirements, install_mlflow=False)
    (target / "conda.yaml").write_text(yaml.safe_dump(environment), encoding="utf-8")
    _PythonEnv.current().to_yaml(str(target / "python_env.yaml"))
    model.save(str(target / "MLmodel"))


def log_model(exported: Path, name: str = "model", **kwargs: Any) -> ModelInfo:
    """Log the folder of an exported model to the active run; keywords as `mlflow.models.Model.log` has them."""
    import mlflow_llmops.flavors.exported_text as flavor

    return Model.log(artifact_path=None, name=name, flavor=flavor, exported=exported, **UNASKED | kwargs)


def load_model(
    model_uri: str, threads: int | None = None, model_config: dict[str, Any] | None = None
) -> "ExportedText | ExportedWriter":
    """Load a logged or saved model as an object with `predict`, and with `logits` where it labels texts.

    `model_config` holds fields of `batching.options.EngineOptions`.
    """
    return _opened(Path(mlflow.artifacts.download_artifacts(model_uri)) / DATA, threads, model_config)


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> "ExportedText | ExportedWriter":
    """MLflow calls this with the folder named `data` in MLmodel."""
    return _opened(Path(path), None, model_config)


def _opened(folder: Path, threads: int | None, model_config: dict[str, Any] | None) -> "ExportedText | ExportedWriter":
    writes = ExportedArtifact.read(folder).task == "text-generation"
    return (ExportedWriter if writes else ExportedText)(folder, threads, model_config)


def defaults_of(artifact: ExportedArtifact) -> EngineOptions:
    """What a version is opened with unless told otherwise.

    Where an answer hangs on its batch-mates, other clients' texts would move it, and a remembered one would be that of
    an earlier company. In onnxruntime a batch of texts takes as long as its texts one by one (`benchmarks/serving.py`).
    """
    if artifact.hangs_on_batch:
        return EngineOptions(memo_rows=0, gather=False)
    return EngineOptions(gather=artifact.kind != "onnx" or artifact.task == "text-generation")


class ExportedText(LabelPredictor):
    """A scorer of text that imports neither torch nor transformers."""

    def __init__(self, folder: Path, threads: int | None = None, model_config: dict[str, Any] | None = None) -> None:
        super().__init__(Handle(_open_scorer, folder, _options(folder, threads, model_config)))


class ExportedWriter(CompletionPredictor):
    """A writer of text that imports neither torch nor transformers."""

    def __init__(self, folder: Path, threads: int | None = None, model_config: dict[str, Any] | None = None) -> None:
        super().__init__(Handle(_open_writer, folder, _options(folder, threads, model_config)))


def _options(folder: Path, threads: int | None, model_config: dict[str, Any] | None) -> EngineOptions:
    given = {**(model_config or {}), **({} if threads is None else {"threads": threads})}
    return EngineOptions.of(given, defaults_of(ExportedArtifact.read(folder)))


def _open_scorer(folder: Path, options: EngineOptions) -> Labelling:
    artifact = ExportedArtifact.read(folder)
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    engine = open_engine(artifact.kind, folder, options.threads or None)
    budget = options.token_budget or artifact.token_budget or TOKEN_BUDGET[artifact.kind]
    scorer = TextScorer(tokenizer, engine, artifact.max_length, artifact.pad_id, budget)
    return Labelling(SharedScorer(scorer, options), artifact.labels)


def _open_writer(folder: Path, options: EngineOptions) -> SharedGenerator:
    artifact = ExportedArtifact.read(folder)
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    begin = open_decoder(artifact.kind, folder, options.threads or None).begin
    budget = options.token_budget or TOKEN_BUDGET[artifact.kind]
    generator = TextGenerator(tokenizer, begin, artifact.max_length, artifact.pad_id, artifact.end_ids, budget)
    return SharedGenerator(generator, options)
