"""The model's way to the workers: its folder where they share our disk, else an archive that Spark hands out."""

import os
import tempfile
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
from pyspark import SparkFiles
from pyspark.sql import SparkSession

if TYPE_CHECKING:  # a worker imports this file, and what finds models imports torch
    from mlflow_llmops.scoring.model import ResolvedModel

KEPT_MODELS = 2
"""A worker process that scores with one version after another keeps so many of them loaded."""


@dataclass(frozen=True)
class Shipped:
    """What a worker needs to load the model: the folder, or the name of the archive."""

    digest: str
    folder: str | None
    archive: str


def ship(spark: SparkSession, model: "ResolvedModel") -> Shipped:
    """Hand the model out, once for each version and session."""
    archive = f"llmops-{model.digest}.zip"
    context = getattr(spark, "sparkContext", None)  # Spark Connect has none
    if context is not None and _on_this_machine(context.master):
        return Shipped(model.digest, str(model.folder), archive)
    packed = Path(tempfile.mkdtemp(prefix="llmops-ship-")) / archive
    with zipfile.ZipFile(packed, "w") as file:
        for path in sorted(path for path in model.folder.rglob("*") if path.is_file()):
            file.write(path, path.relative_to(model.folder))
    if context is not None:
        if not any(shipped.endswith(archive) for shipped in context.listFiles):
            context.addFile(str(packed))
    elif archive not in _added(spark):
        spark.addArtifacts(str(packed), file=True)
        _added(spark).add(archive)
    return Shipped(model.digest, None, archive)


def _on_this_machine(master: str) -> bool:
    return master.startswith("local") and not master.startswith("local-cluster")


def _added(spark: Any) -> set[str]:
    """Archives that this session of Spark Connect has: it refuses a name that it has already."""
    return spark.__dict__.setdefault("_llmops_archives", set())


@lru_cache(maxsize=KEPT_MODELS)
def loaded(shipped: Shipped) -> tuple[Any, Path]:
    """The pyfunc and its folder: once for a worker process, whatever the number of its tasks."""
    folder = Path(shipped.folder) if shipped.folder else _unpacked(shipped)
    return mlflow.pyfunc.load_model(str(folder), suppress_warnings=True), folder


def _unpacked(shipped: Shipped) -> Path:
    """Once on a host, so that its workers share the pages of the weights."""
    place = Path(tempfile.gettempdir()) / f"llmops-models-{os.getuid()}" / shipped.digest
    if place.is_dir():
        return place
    place.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=place.parent))
    with zipfile.ZipFile(SparkFiles.get(shipped.archive)) as file:
        file.extractall(fresh)
    try:
        fresh.rename(place)
    except OSError:  # another worker was first
        if not place.is_dir():
            raise
    return place
