"""Which model a job scores with: an alias is a version before the first row, and stays it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.types import ColSpec, Schema
from mlflow.types import DataType as MlflowType
from mlflow.types.schema import Array, ParamSchema, ParamSpec
from pyspark.sql.types import ArrayType, DataType, StructField, StructType

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError, ModelError
from mlflow_llmops.tracking.references import MLMODEL, download, pinned

NOT_OF_THE_MODEL = ("registered_model_meta",)
"""Files that MLflow puts beside a model when it is fetched by one of its names."""


@dataclass(frozen=True)
class ResolvedModel:
    """A model of the tracking store, or a folder, as it was when the job began."""

    reference: str
    uri: str
    """With the version's number where the reference had an alias or a stage."""
    version: str
    """The number; the model's id, or empty, where it is no registered version."""
    folder: Path
    digest: str
    columns: tuple[str, ...]
    """The names of its inputs: mostly one, several where a prompt names them."""
    result: DataType
    asks_endpoint: bool
    runtimes: tuple[str, ...]
    """Name and version, on this machine, of what the model says that it needs."""
    params: ParamSchema | None
    """Of its signature."""

    @property
    def tells_errors(self) -> bool:
        """It answers with a column for its own error of a row, as those that ask endpoints do."""
        return self.asks_endpoint and isinstance(self.result, StructType) and "error" in self.result.names


def resolve(reference: str) -> ResolvedModel:
    """Find the version that `reference` means now, and fetch it.

    Raises ModelError where there is none, or where it takes no texts.
    """
    uri, number = pinned(reference)
    folder, digest = _fetched(uri) if uri.startswith("models:/") and number else _fetch(uri)
    if not (folder / MLMODEL).is_file():
        raise ModelError(
            f"model={reference}: no MLflow model lies there; give models:/name/3, models:/name@alias or so"
        )
    model = Model.load(str(folder / MLMODEL))
    kind = (model.metadata or {}).get("llmops_kind")
    columns, result = _signature(reference, model)
    described = number or str(model.model_id or "")
    needed = folder / "requirements.txt"
    runtimes = _installed(needed.read_text(encoding="utf-8") if needed.is_file() else "")
    params = model.signature.params if model.signature else None
    asks = kind in names.ENDPOINT_KINDS
    return ResolvedModel(reference, uri, described, folder, digest, columns, result, asks, runtimes, params)


def check_params(model: ResolvedModel, params: Mapping[str, Any]) -> None:
    """Raises ConfigError for params that are not of the model's signature: MLflow would leave a misspelt one out, and
    fail every row for one of another type."""
    known = {spec.name: spec for spec in model.params or ()}
    for name, value in params.items():
        if name not in known:
            has = f"it has: {', '.join(known)}" if known else "it has none"
            raise ConfigError(f"params: model={model.reference} has no param {name}; {has}")
        try:
            ParamSpec.validate_param_spec(value, known[name])
        except MlflowException as error:
            raise ConfigError(f"params: {name}={value!r}: the model takes {known[name].dtype}") from error


def _fetched(uri: str) -> tuple[Path, str]:
    """Of a version: a stream asks for it with each batch, and it does not change."""
    return _fetched_from(uri, mlflow.get_tracking_uri(), mlflow.get_registry_uri())


@lru_cache(maxsize=8)
def _fetched_from(uri: str, tracking: str, registry: str) -> tuple[Path, str]:
    """The stores are in the key: another one has another model under the same name."""
    return _fetch(uri)


def _fetch(uri: str) -> tuple[Path, str]:
    folder = download(uri)
    return folder, digest_of(folder)


def digest_of(folder: Path) -> str:
    """SHA-256 over the names and contents of a model's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in NOT_OF_THE_MODEL):
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(folder)}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:32]


def _signature(reference: str, model: Model) -> tuple[tuple[str, ...], DataType]:
    """The inputs' names and what a row's answer is in Spark. Raises ModelError where a text is not what it takes."""
    signature = model.signature
    if "python_function" not in model.flavors:
        raise ModelError(f"model={reference} has no pyfunc flavor, which scoring calls; log it with one")
    if signature is None or signature.inputs is None or signature.outputs is None:
        raise ModelError(f"model={reference} has no signature of inputs and outputs; log it with one")
    inputs = signature.inputs.inputs
    if not all(isinstance(each, ColSpec) and each.type == MlflowType.string for each in inputs):
        raise ModelError(f"model={reference} is no text model: it takes {signature.inputs}, and not columns of texts")
    try:
        return tuple(each.name or "text" for each in inputs), _result(signature.outputs)
    except MlflowException as error:
        raise ModelError(
            f"model={reference} answers with {signature.outputs}, which is no type of Spark's; log it with columns"
        ) from error


def _result(outputs: Schema) -> DataType:
    columns: list[Any] = outputs.inputs
    if not isinstance(columns[0], ColSpec) or [column.name for column in columns] == [None]:
        return outputs.as_spark_schema()
    return StructType([StructField(column.name, _spark_type(column.type)) for column in columns])


def _spark_type(type_: Any) -> DataType:
    """Of a scalar or of an array of them, which MLflow's own conversion does not know."""
    scalar: Any = type_.dtype if isinstance(type_, Array) else type_
    return ArrayType(scalar.to_spark()) if isinstance(type_, Array) else scalar.to_spark()


def _installed(requirements: str) -> tuple[str, ...]:
    found = []
    for line in requirements.splitlines():
        name = line.partition("==")[0].strip()
        if name and name.replace("-", "").replace("_", "").isalnum():
            try:
                found.append(f"{name} {version(name)}")
            except PackageNotFoundError:  # the workers may have it
                found.append(f"{name} not on the driver")
    return tuple(sorted(found))
