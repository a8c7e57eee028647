"""Options that several verbs share, written once: the text is what the command line and MLproject show."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from rich.console import RenderableType

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods.option import AUTO

Model = Annotated[
    str,
    "Hugging Face id, folder, models:/name/3, models:/name@alias, runs:/id/model, builtin:encoder, or builtin:decoder "
    "for text-generation",
]
Data = Annotated[str, "CSV, JSONL or Parquet file, folder with train, dev, test, Hugging Face id, builtin:docstrings"]
EvalData = Annotated[str | None, "file of the test split, where it is one of its own"]
TextColumn = Annotated[str, "the column that holds the texts"]
LabelColumn = Annotated[str, "the column that holds the labels; text-generation looks at none"]
Overlap = Annotated[Literal["drop", "error", "allow"], "what to do with texts that stand in more than one split"]
RegisterAs = Annotated[str | None, "registered model that gets the result as a new version; auto: none"]
RegisteredModel = Annotated[str, "registered model"]
Seed = Annotated[int, "seed of everything random", Ge(0), Lt(2**32)]
MeasureSeconds = Annotated[
    float,
    "time for measuring speed, for all models of a run together; less where every speed-up is known to 1 % before",
    Gt(0),
]
MaxQualityDrop = Annotated[
    float,
    "largest loss that the gate accepts, at the interval's low end: of accuracy, or nats per token for text-generation",
    Ge(0),
]
MinSpeedup = Annotated[float, "smallest speed-up that the gate accepts, at the interval's low end", Ge(0)]
RecommendedDrop = Annotated[
    float | None, "largest loss of quality against the baseline that a recommended model may have; auto: any", Ge(0)
]
RecommendedSpeedup = Annotated[
    float | None, "smallest speed-up over the baseline, at the interval's low end, of it; auto: any", Gt(0)
]
RecommendedLatency = Annotated[float | None, "largest p95 latency of one text, in ms, of it; auto: any", Gt(0)]
RecommendedSize = Annotated[float | None, "largest size on disk, in MiB, of it; auto: any", Gt(0)]
TrustRemoteCode = Annotated[bool, "run Python code that comes with the model: only for sources you trust"]

KeyVariable = Annotated[str, "name of the environment variable that holds the endpoint's key"]
Concurrency = Annotated[int, "requests on their way to the endpoint at once", Ge(1)]
Timeout = Annotated[float, "seconds that the endpoint may take for an answer", Gt(0)]
MaxRetries = Annotated[int, "times a request is repeated after 429, 5xx, a timeout or a lost connection", Ge(0)]
Trace = Annotated[bool, "the loaded model turns MLflow's tracing of its calls on"]
Examples = Annotated[str | None, "CSV, JSONL or Parquet file with rows to ask before registering; auto: a made-up one"]
ExampleRows = Annotated[int, "rows of examples that are asked, each twice", Ge(1)]

DOCSTRINGS = "builtin:docstrings"


@dataclass(frozen=True)
class Outcome:
    """What a step did, for the caller and for whoever prints it."""

    run_id: str
    """Empty in the processes that train along: the first one has the run."""
    shown: tuple[RenderableType, ...] = ()
    """Rich renderables, in order."""
    values: Mapping[str, Any] | None = None


def data_params(
    verb: str, data: str, text_column: str, label_column: str, eval_data: str | None, overlap: str
) -> dict[str, Any]:
    """The options that say which texts a run saw, under the names that its parameters have."""
    given = {"data": data, "text_column": text_column, "label_column": label_column}
    given |= {"eval_data": eval_data or AUTO, "overlap": overlap}
    return {f"{verb}.{name}": value for name, value in given.items()}


def text_or_file(option: str, value: str) -> str:
    """`value`, or what stands in the file that @file names. Raises ConfigError where it cannot be read."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option}={value}: this file cannot be read ({error})") from error


def said_of_overlap(data: Splits) -> list[str]:
    """What must be told of texts that stood in more than one split."""
    said = []
    if data.overlap_removed:
        said.append(
            f"{data.overlap_removed} texts stood in more than one split and were left out of train or dev, so that "
            "test is seen for the first time"
        )
    if data.overlap_kept:
        said.append(
            f"WARNING: {data.overlap_kept} texts stand in more than one split and were kept (overlap=allow): quality "
            "is measured partly on texts that training saw"
        )
    return said
