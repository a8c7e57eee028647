"""Which versions a version was made from, read off the tags that every verb leaves."""

from mlflow_llmops import names
from mlflow_llmops.registry.versions import versions_of


def ancestors(name: str, version: str) -> set[str]:
    """The versions of `name` that `version` was made from, step by step; those of other names are not followed."""
    versions = {str(v.version): v for v in versions_of(name)}
    by_model = {str(v.source).rpartition("/")[2]: number for number, v in versions.items()}
    found: set[str] = set()
    at: str | None = version
    while at is not None:
        parent = by_model.get(versions[at].tags.get(names.SOURCE_MODEL_ID, ""))
        at = parent if parent not in found and parent != version else None
        found |= {at} if at else set()
    return found
