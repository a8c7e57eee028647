"""Read a model from a folder or a Hugging Face id, or make a small one; MLflow's references are folders by now."""

from pathlib import Path

from huggingface_hub.errors import HFValidationError
from transformers import AutoConfig, AutoTokenizer

from mlflow_llmops.data.texts import Texts
from mlflow_llmops.engines.artifact import DESCRIPTION, ExportedArtifact
from mlflow_llmops.errors import ConfigError, ModelError
from mlflow_llmops.models.scratch import SCRATCH, small_encoder
from mlflow_llmops.models.tasks import task_named
from mlflow_llmops.models.text_model import TextModel

LONGEST = 512
"""Tokens a text is cut to where the tokenizer sets no limit of its own."""


def load(
    model: str,
    task: str = "text-classification",
    labels: tuple[str, ...] = (),
    texts: Texts | None = None,
    trust_remote_code: bool = False,
    named: str | None = None,
    tokenizer: str | None = None,
) -> TextModel:
    """Load `model` for `task`; a classifier whose head has another size than `labels` gets a fresh one.

    `labels=()` takes the model's own. `texts` are what `builtin:encoder` learns its vocabulary from. Errors call the
    model `named`, where the folder is only the local copy of a reference. `tokenizer` is its folder where that is
    another one.

    Raises ModelError for a model that is not there, cannot be read or does not fit the task.
    """
    named = named or model
    if model == SCRATCH:
        if texts is None or task != "text-classification":
            raise ConfigError(f"model={SCRATCH} is a classifier that finetune trains; give a trained model here")
        return small_encoder(texts, labels)
    if (Path(model) / DESCRIPTION).is_file():
        return _load_exported(Path(model), task, labels, named)
    if Path(model).exists() and not (Path(model) / "config.json").is_file():
        raise ModelError(f"model={named}: the folder holds no config.json, so it is no saved transformers model")
    task_named(task)
    options = {"trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(model, **options)
        pieces = AutoTokenizer.from_pretrained(tokenizer or model, **options)
    except (OSError, ValueError, HFValidationError) as error:
        if Path(model).is_dir():
            raise ModelError(f"model={named} cannot be read: {_short(error)}") from error
        raise ModelError(
            f"model={named} is neither a folder here nor a model that the Hugging Face hub gives "
            f"({_short(error)}); check the path or the id"
        ) from error
    return _load_torch(model, task, labels, named, config, pieces, options)


def _load_torch(model, task, labels, named, config, tokenizer, options) -> TextModel:
    if not tokenizer.is_fast:
        raise ModelError(f"model={named} has no fast tokenizer (tokenizer.json), which batching needs; convert it")
    own = _own_labels(config)
    head: dict[str, object] = {}
    if task_named(task).labelled:
        if set(labels) <= set(own):
            labels = own  # in the order of its outputs, whatever the order of the data's
        if labels != own:
            head = {
                "num_labels": len(labels),
                "id2label": dict(enumerate(labels)),
                "label2id": {label: i for i, label in enumerate(labels)},
                "ignore_mismatched_sizes": True,
            }
    try:
        net = task_named(task).auto().from_pretrained(model, **head, **options)
    except (OSError, ValueError) as error:
        raise ModelError(f"model={named} cannot be loaded for task={task}: {_short(error)}") from error
    if tokenizer.pad_token is None:  # decoders often have none; the mask keeps it out of every result
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise ModelError(f"model={named}: its tokenizer has no padding, end or unknown token to pad batches with")
    net.config.pad_token_id = tokenizer.pad_token_id
    net.eval()
    return TextModel(task, tokenizer, _longest(tokenizer, config), labels, net)


def _load_exported(folder: Path, task: str, labels: tuple[str, ...], named: str) -> TextModel:
    from transformers import PreTrainedTokenizerFast

    artifact = ExportedArtifact.read(folder)
    if artifact.task != task:
        raise ModelError(f"model={named} was exported for task={artifact.task}, not {task}")
    if labels and set(labels) - set(artifact.labels):
        raise ModelError(f"model={named} knows the labels {', '.join(artifact.labels[:5])} ..., not those of the data")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(artifact.pad_id)
    return TextModel(task, tokenizer, artifact.max_length, artifact.labels, folder=folder, kind=artifact.kind)


def _own_labels(config) -> tuple[str, ...]:
    names = getattr(config, "id2label", None) or {}
    return tuple(names[i] for i in sorted(names))


def _longest(tokenizer, config) -> int:
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or LONGEST]
    return int(min(*limits, LONGEST))


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
