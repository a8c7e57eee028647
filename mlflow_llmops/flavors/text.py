"""Torch models in MLflow's own transformers flavor, which any MLflow loads without this package.

As a pyfunc it is run by this package's engine: MLflow's pipeline takes texts for Python literals where the input has no
column name ("42" fails, "{'text': 'x'}" is x), fails on nulls, and pads without sorting.
"""

import logging
from collections.abc import Callable
from copy import copy, deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.transformers
from mlflow.models import Model
from mlflow.models.model import ModelInfo

from mlflow_llmops import __version__
from mlflow_llmops.batching.generator import TextGenerator
from mlflow_llmops.batching.options import EngineOptions
from mlflow_llmops.batching.plan import TOKEN_BUDGET
from mlflow_llmops.batching.scorer import TextScorer
from mlflow_llmops.batching.shared_generator import SharedGenerator
from mlflow_llmops.batching.shared_scorer import SharedScorer
from mlflow_llmops.flavors._completions import CompletionPredictor
from mlflow_llmops.flavors._example import UNASKED, keep_example
from mlflow_llmops.flavors._handle import Handle
from mlflow_llmops.flavors._labels import Labelling, LabelPredictor
from mlflow_llmops.models.load import load
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.models.torch_runner import use_threads
from mlflow_llmops.tracking.references import task_of
from mlflow_llmops.tracking.signature import SIGNATURES

REQUIREMENTS = ("mlflow", "torch", "transformers", "tokenizers", "numpy")
BATCH_SIZE = 32
PARTS = ("model", "components/tokenizer")
"""The folders of the artifact that answers depend on."""
OWN_CODE = "llmops_trust_remote_code"
"""In the metadata of a model whose code its user trusted when it was logged: as a pyfunc it runs."""


def log_model(model: TextModel, name: str) -> ModelInfo:
    """Log network (safetensors) and tokenizer with signature, label names and exact requirements."""
    import mlflow_llmops.flavors.text as flavor

    return Model.log(artifact_path=None, name=name, flavor=flavor, model=model, **UNASKED)


def save_model(
    model: TextModel, path: str | Path, mlflow_model: Model | None = None, validate_serving_input: bool = False
) -> None:
    """The same artifact in a folder, outside of any run; MLflow calls it with the model that is logged."""
    model.check_stock()
    saved = mlflow_model or Model()
    mlflow.transformers.save_model(**_described(model), path=str(path), mlflow_model=saved)
    keep_example(saved, path)
    pyfunc = saved.flavors["python_function"]
    pyfunc["loader_module"] = __name__
    pyfunc["config"] = {**pyfunc.get("config", {}), **EngineOptions().stored()}
    saved.save(str(Path(path) / "MLmodel"))


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> LabelPredictor | CompletionPredictor:
    """MLflow calls this with the folder of the artifact."""
    folder, options = Path(path), EngineOptions.of(model_config)
    trusted = bool((Model.load(str(folder / "MLmodel")).metadata or {}).get(OWN_CODE))
    if task_of(folder) == "text-generation":
        return CompletionPredictor(Handle(_open_writer, folder, options, PARTS, (trusted,)))
    return LabelPredictor(Handle(_open_scorer, folder, options, PARTS, (trusted,)))


def _open_scorer(folder: Path, options: EngineOptions, trusted: bool) -> Labelling:
    model = _loaded(folder, options, trusted)
    budget = options.token_budget or TOKEN_BUDGET[model.kind]
    scorer = TextScorer(model.encoder, model.run, model.max_length, model.pad_id, budget)
    return Labelling(SharedScorer(scorer, options), model.labels)


def _open_writer(folder: Path, options: EngineOptions, trusted: bool) -> SharedGenerator:
    model = _loaded(folder, options, trusted)
    budget = options.token_budget or TOKEN_BUDGET[model.kind]
    begin = model.run.begin
    generator = TextGenerator(model.encoder, begin, model.max_length, model.pad_id, model.end_ids, budget)
    return SharedGenerator(generator, options)


def _loaded(folder: Path, options: EngineOptions, trusted: bool) -> TextModel:
    if options.threads:
        use_threads(options.threads)
    network, tokenizer = (folder / part for part in PARTS)
    return load(str(network), task_of(folder), trust_remote_code=trusted, tokenizer=str(tokenizer))


def _described(model: TextModel) -> dict[str, Any]:
    # It warns that a model of our own has no card on the hub.
    logging.getLogger("mlflow.transformers").setLevel(logging.ERROR)
    return {
        "transformers_model": {"model": _nameless(model.network), "tokenizer": _bounded(model)},
        "task": model.task,
        "signature": SIGNATURES[model.task],
        "model_config": {**_TOO_LONG[model.task](model), "batch_size": BATCH_SIZE},
        # given, because MLflow would otherwise import torchvision to infer them
        "pip_requirements": [
            *(f"{package}=={version(package).partition('+')[0]}" for package in _required(model)),
            f"mlflow-llmops=={__version__}",
        ],
        "metadata": {"llmops_kind": model.kind, **({OWN_CODE: True} if model.brings_code else {})},
    }


_TOO_LONG: dict[str, Callable[[TextModel], dict[str, Any]]] = {
    # without truncation a text that is too long would fail its whole batch
    "text-classification": lambda model: {"truncation": True, "max_length": model.max_length},
    # a prompt keeps its end, and room for what is to be written; the answer is the completion alone
    "text-generation": lambda model: {"handle_long_generation": "hole", "return_full_text": False},
}


def _bounded(model: TextModel) -> Any:
    """The tokenizer, for generation as a copy that says how much the network takes and fills up on the left: the
    pipeline would set that on the one in memory."""
    if model.task != "text-generation":
        return model.tokenizer
    tokenizer = deepcopy(model.tokenizer)
    tokenizer.model_max_length = model.max_length
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"  # only what it was made with is saved
    return tokenizer


def _required(model: TextModel) -> tuple[str, ...]:
    quantized = getattr(model.network.config, "quantization_config", None) is not None
    return (*REQUIREMENTS, "torchao") if quantized else REQUIREMENTS


def _nameless(network: Any) -> Any:
    """The same network, weights shared, without the id or path that it was loaded from.

    MLflow would ask the Hugging Face hub for that name's card and license, where there is no network for half a
    minute, and log the name: of a folder of ours, or of a model that ours is no longer.
    """
    nameless = copy(network)
    nameless.config = copy(network.config)
    nameless.config.name_or_path = nameless.name_or_path = ""
    if getattr(network, "generation_config", None) is not None:  # the pipeline fills it in
        nameless.generation_config = copy(network.generation_config)
    return nameless
