"""Read a model from a folder or a Hugging Face id, or make a small one; MLflow's references are folders by now."""

import json
from pathlib import Path
from pickle import UnpicklingError

import torch
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer

from mlflow_llmops.data.texts import Texts
from mlflow_llmops.engines.artifact import DESCRIPTION, TOKENIZER, ExportedArtifact
from mlflow_llmops.errors import ConfigError, ModelError
from mlflow_llmops.models.scratch import SCRATCH, small_encoder
from mlflow_llmops.models.scratch_decoder import SCRATCH_DECODER, small_decoder
from mlflow_llmops.models.tasks import task_named
from mlflow_llmops.models.text_model import TextModel

LONGEST = 512
"""Tokens a text is cut to where the tokenizer sets no limit of its own."""

BUILTIN = {SCRATCH: "text-classification", SCRATCH_DECODER: "text-generation"}
"""Models that are made here, and their tasks."""

UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, RuntimeError),
    *(HFValidationError, StrictDataclassError, SafetensorError, UnpicklingError),
)
"""What transformers raises for a model that is not there, broken, or not of its versions."""


def load(
    model: str,
    task: str = "text-classification",
    labels: tuple[str, ...] = (),
    texts: Texts | None = None,
    trust_remote_code: bool = False,
    named: str | None = None,
    tokenizer: str | None = None,
) -> TextModel:
    """Load `model` for `task`; a classifier gets a fresh head, unless all `labels` are its own.

    `labels=()` takes the model's own. `texts` are what the builtin models learn their vocabulary from. Without either
    the model is not about to be trained, so all its weights have to be there. Errors call the
    model `named`, where the folder is only the local copy of a reference. `tokenizer` is its folder where that is
    another one.

    Raises ModelError for a model that is not there, cannot be read or does not fit the task.
    """
    named = named or model
    if model in BUILTIN:
        return _builtin(model, task, labels, texts)
    if (Path(model) / DESCRIPTION).is_file():
        return _load_exported(Path(model), task, labels, named)
    if not model or Path(model).is_file():
        raise ModelError(f"model={named!r} is no folder; give a folder, a Hugging Face id or a reference of MLflow")
    if Path(model).exists() and not (Path(model) / "config.json").is_file():
        raise ModelError(f"model={named}: the folder holds no config.json, so it is no saved transformers model")
    task_named(task)
    options = {"trust_remote_code": trust_remote_code}
    if not trust_remote_code:
        _check_no_code(model, tokenizer, named)
    try:
        config = AutoConfig.from_pretrained(model, **options)
    except UNREADABLE as error:
        if Path(model).is_dir():
            raise ModelError(f"model={named} cannot be read: {_short(error)}") from error
        raise ModelError(
            f"model={named} is neither a folder here nor a model that the Hugging Face hub gives "
            f"({_short(error)}); check the path or the id"
        ) from error
    pieces = _tokenizer(model, tokenizer, named, options)
    trained_next = bool(labels) or texts is not None
    return _load_torch(model, task, labels, named, config, pieces, options, trained_next)


def _check_no_code(model: str, tokenizer: str | None, named: str) -> None:
    """Raises ModelError for a folder that brings Python code: transformers leaves it aside where it knows the kind of
    the model, and what is loaded is another network than the one that was meant."""
    file = code_in(model, tokenizer)
    if file:
        raise ModelError(
            f"model={named} brings Python code of its own (auto_map in its {file}), which runs only with "
            "trust_remote_code=true: give that if you trust its source"
        )


def code_in(model: str | Path, tokenizer: str | Path | None = None) -> str | None:
    """The file of a folder that says it brings Python code of its own; None where none does."""
    for folder, file in ((model, "config.json"), (tokenizer or model, "tokenizer_config.json")):
        path = Path(folder) / file
        try:
            described = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except ValueError:  # told with more words where it is read
            continue
        if isinstance(described, dict) and described.get("auto_map"):
            return file
    return None


def _builtin(model: str, task: str, labels: tuple[str, ...], texts: Texts | None) -> TextModel:
    if task != BUILTIN[model]:
        raise ConfigError(f"model={model} is for task={BUILTIN[model]}, not for task={task}; give a model of that task")
    if texts is None:
        raise ConfigError(f"model={model} is not trained: finetune trains it; give a trained model here")
    return small_encoder(texts, labels) if model == SCRATCH else small_decoder(texts)


def _tokenizer(model, tokenizer, named, options):
    folder = Path(tokenizer or model)
    local = tokenizer is not None or folder.is_dir()
    try:
        pieces = AutoTokenizer.from_pretrained(tokenizer or model, **options)
    except Exception as error:  # of a broken file: KeyError, TypeError ..., and Rust's errors are a bare Exception
        there = not local or (folder / TOKENIZER).is_file()
        raise ModelError(
            f"model={named}: its tokenizer cannot be read ({type(error).__name__}: {_short(error)}); "
            + ("save it again" if there else f"{TOKENIZER} is missing in {folder}")
        ) from error
    files = sorted(type(pieces).vocab_files_names.values())
    if local and files and not any((folder / file).is_file() for file in files):
        # transformers makes one without any words then
        raise ModelError(f"model={named}: no tokenizer is saved in {folder}; missing: {' or '.join(files)}")
    if not pieces.is_fast:
        raise ModelError(f"model={named} has no fast tokenizer ({TOKENIZER}), which batching needs; convert it")
    return pieces


def _load_torch(model, task, labels, named, config, tokenizer, options, trained_next) -> TextModel:
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
            }
    try:
        net, found = (
            task_named(task)
            .auto()
            .from_pretrained(model, output_loading_info=True, ignore_mismatched_sizes=True, **head, **options)
        )
    except UNREADABLE as error:
        raise ModelError(f"model={named} cannot be loaded for task={task}: {_short(error)}") from error
    _check_weights(net, found, named, task_named(task).head, bool(head), trained_next)
    if head and len(labels) == len(own):
        _renew_head(net, len(labels), named)
    if tokenizer.pad_token is None:  # decoders often have none; the mask keeps it out of every result
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise ModelError(f"model={named}: its tokenizer has no padding, end or unknown token to pad batches with")
    net.config.pad_token_id = tokenizer.pad_token_id
    net.eval()
    if task == "text-generation" and not _is_causal(net):
        raise ModelError(
            f"model={named}: its tokens see those that follow, so it cannot write text; give a causal model"
        )
    return TextModel(task, tokenizer, _longest(tokenizer, config), labels, net)


def _is_causal(net) -> bool:
    """Whether a token's answer leaves out the tokens behind it: transformers loads encoders for this task as well."""
    ids = torch.arange(5, 11).remainder(net.config.vocab_size).unsqueeze(0)
    other = ids.clone()
    other[0, -1] = 0
    with torch.inference_mode():
        before, after = (
            net(input_ids=each, attention_mask=torch.ones_like(each)).logits[0, :-1] for each in (ids, other)
        )
    return torch.allclose(before, after, atol=1e-4)


def _check_weights(net, found, named, head_name, new_head, trained_next) -> None:
    """Raise ModelError for weights that transformers drew at random, unless training is to set them."""
    body = f"{net.base_model_prefix}."
    # transformers 5 gives shapes beside the names
    mismatched = [key if isinstance(key, str) else key[0] for key in found["mismatched_keys"]]
    unfit = sorted(name for name in mismatched if name.startswith(body) or not new_head)
    if unfit:
        raise ModelError(f"model={named}: its weights have other shapes than its config.json says ({_few(unfit)})")
    missing = sorted(found["missing_keys"])
    if missing and not trained_next:
        if any(name.startswith(body) for name in missing):
            raise ModelError(f"model={named}: weights are missing ({_few(missing)}); save the whole model again")
        raise ModelError(f"model={named}: its {head_name} is not trained (missing {_few(missing)}); finetune it first")


def _renew_head(net, size: int, named: str) -> None:
    """Draw new weights for a head that fits in size but was trained for other labels."""
    body = set() if net.base_model is net else set(net.base_model.modules())
    layers = [
        layer
        for layer in net.modules()
        if isinstance(layer, torch.nn.Linear) and layer not in body and layer.out_features == size
    ]
    if not layers:
        raise ModelError(
            f"model={named}: its head for other labels cannot be replaced, no linear layer of it has {size} outputs"
        )
    for layer in layers:
        for parameter in layer.parameters():
            # transformers leaves weights alone that it loaded
            parameter._is_hf_initialized = False  # type: ignore[attr-defined]
        with torch.no_grad():
            net._init_weights(layer)


def _load_exported(folder: Path, task: str, labels: tuple[str, ...], named: str) -> TextModel:
    from transformers import PreTrainedTokenizerFast

    artifact = ExportedArtifact.read(folder)
    if artifact.task != task:
        raise ModelError(f"model={named} was exported for task={artifact.task}, not {task}")
    if labels and set(labels) - set(artifact.labels):
        raise ModelError(f"model={named} knows the labels {', '.join(artifact.labels[:5])} ..., not those of the data")
    try:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / TOKENIZER))
    except Exception as error:  # Rust's errors are a bare Exception
        raise ModelError(f"model={named}: its {TOKENIZER} cannot be read ({_short(error)}); export it again") from error
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(artifact.pad_id)
    return TextModel(task, tokenizer, artifact.max_length, artifact.labels, folder=folder, kind=artifact.kind)


def _own_labels(config) -> tuple[str, ...]:
    names = getattr(config, "id2label", None) or {}
    return tuple(names[i] for i in sorted(names))


def _longest(tokenizer, config) -> int:
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or LONGEST]
    return int(min(*limits, LONGEST))


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
