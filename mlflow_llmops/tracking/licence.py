"""The licence of the model that a version was made from, where it is known without running anything."""

from pathlib import Path

import yaml
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from mlflow_llmops import names
from mlflow_llmops.tracking.lineage import tags_of
from mlflow_llmops.tracking.loaded import LoadedModel
from mlflow_llmops.tracking.references import SCHEMES

CARD = "README.md"
"""Where Hugging Face keeps a model's card: its licence stands between two lines of dashes at the beginning."""


def licence_of(source: LoadedModel) -> str | None:
    """That of its card, or that which the run of one of our own models says; None where nobody says."""
    if source.reference.startswith(SCHEMES):
        return _of_run(source.model_id)
    folder = Path(source.reference)
    return _of_card(folder / CARD if folder.is_dir() else _cached(source.reference))


def _of_run(model_id: str | None) -> str | None:
    return (tags_of(model_id).get(names.LICENCE) or None) if model_id else None


def _cached(model: str) -> Path | None:
    """The card that came along with a model of the hub; loading the model alone does not fetch it."""
    try:
        found = try_to_load_from_cache(model, CARD)
    except HFValidationError:  # builtin:encoder
        return None
    return Path(found) if isinstance(found, str) else None


def _of_card(card: Path | None) -> str | None:
    if card is None or not card.is_file():
        return None
    start, dashes, rest = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
    if start.strip() or not dashes:
        return None
    try:
        said = yaml.safe_load(rest.partition("\n---")[0])
    except yaml.YAMLError:
        return None
    licence = said.get("license") if isinstance(said, dict) else None
    if licence == "other":
        licence = said.get("license_name") or licence
    listed = licence if isinstance(licence, list) else [licence] if licence else []
    return ", ".join(map(str, listed)) or None
