"""Options that several verbs share, written once: the text is what the command line and MLproject show."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt
from rich.console import RenderableType

Model = Annotated[str, "Hugging Face id, folder, models:/name/3, models:/name@alias, runs:/id/model or builtin:encoder"]
Data = Annotated[str, "CSV, JSONL or Parquet file, folder with train, dev, test, Hugging Face id, builtin:docstrings"]
EvalData = Annotated[str | None, "file of the test split, where it is one of its own"]
TextColumn = Annotated[str, "the column that holds the texts"]
LabelColumn = Annotated[str, "the column that holds the labels"]
Overlap = Annotated[Literal["drop", "error", "allow"], "what to do with train texts that stand in dev or test too"]
RegisterAs = Annotated[str | None, "registered model that gets the result as a new version; auto: none"]
Seed = Annotated[int, "seed of everything random", Ge(0)]
MeasureSeconds = Annotated[float, "time for measuring speed, for all models of a run together", Gt(0)]
MaxQualityDrop = Annotated[float, "largest loss of accuracy that the gate accepts, at the interval's low end", Ge(0)]
MinSpeedup = Annotated[float, "smallest speed-up that the gate accepts, at the interval's low end", Ge(0)]
TrustRemoteCode = Annotated[bool, "run Python code that comes with the model: only for sources you trust"]

DOCSTRINGS = "builtin:docstrings"


@dataclass(frozen=True)
class Outcome:
    """What a step did, for the caller and for whoever prints it."""

    run_id: str
    shown: tuple[RenderableType, ...] = ()
    """Rich renderables, in order."""
    values: Mapping[str, Any] | None = None
