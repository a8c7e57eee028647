"""The model card of a version: what it is, where it comes from, what was measured on what, and how to use it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.tracking import MlflowClient

from mlflow_llmops import __version__, names
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.measure.measurement import flat
from mlflow_llmops.tracking.report import Row, markdown
from mlflow_llmops.tracking.signature import RESULT_TYPES

UNKNOWN = "not known"


@dataclass(frozen=True)
class ModelCard:
    """All that a card says. `rows` are the baseline's and the version's, the last one."""

    method: str
    chain: str
    options: Mapping[str, Any]
    task: str
    kind: str
    labels: tuple[str, ...]
    source: str
    """The reference of the model that it was made from."""
    source_model_id: str | None
    licence: str | None
    """Of that model."""
    verdict: str
    rows: Sequence[Row]
    data: Mapping[str, str]
    """Where the data come from, and the fingerprint of each split."""
    run_id: str
    model_uri: str
    name: str = ""
    version: str = ""

    @property
    def uri(self) -> str:
        """What to load: the version, once there is one."""
        return f"models:/{self.name}/{self.version}" if self.version else self.model_uri

    def title(self) -> str:
        return f"{self.name} version {self.version}" if self.version else self.name or self.method

    def short(self) -> str:
        """A version's description."""
        return (
            f"{self.chain.replace(' > ', ', then ')}, of {self.source}: {self.verdict}. "
            f"{self.task}, {self.kind}; licence of its source: {self.licence or UNKNOWN}. Card: {card_uri(self.run_id)}"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "task": self.task,
            "kind": self.kind,
            "labels": list(self.labels),
            "source": {"model": self.source, "model_id": self.source_model_id, "licence": self.licence},
            "method": self.method,
            "chain": self.chain.split(" > "),
            "options": {option: str(value) for option, value in self.options.items()},
            "verdict": self.verdict,
            "measured": {row.label: flat(row.measured) for row in self.rows},
            "data": dict(self.data),
            "hardware": _machine(),
            "run": self.run_id,
            "model_uri": self.model_uri,
            "use": self._uses(),
            "made_with": f"mlflow-llmops {__version__}",
        }

    def markdown(self) -> str:
        """The same for readers."""
        facts = {
            "task": self.task,
            "kind": self.kind,
            "labels": ", ".join(self.labels[:20]) + (" ..." if len(self.labels) > 20 else ""),
            "made from": self.source + (f" ({self.source_model_id})" if self.source_model_id else ""),
            "licence of that model": self.licence or UNKNOWN,
            "methods, in their order": self.chain,
            "options": ", ".join(f"{option}={value}" for option, value in self.options.items()),
            "verdict": self.verdict,
            "data": ", ".join(f"{part} {said}" for part, said in self.data.items()),
            "hardware": _machine()[names.HARDWARE],
            "run": self.run_id,
            "logged model": self.model_uri,
        }
        lines = [f"# {self.title()}", "", "| | |", "|---|---|"]
        lines += [f"| {fact} | {said.replace('|', chr(92) + '|')} |" for fact, said in facts.items() if said]
        table = markdown(self.rows, "What was measured").replace("# ", "## ", 1).rstrip()
        lines += ["", table, "", "## How to use it"]
        for use, (language, code) in self._uses().items():
            lines += ["", f"{use}:", "", f"```{language}", code, "```"]
        return "\n".join([*lines, ""])

    def _uses(self) -> dict[str, tuple[str, str]]:
        texts = '["Return the sum of"]' if self.task == "text-generation" else '["a text"]'
        result = RESULT_TYPES[self.task]
        return {
            "Load it": ("python", f'import mlflow\n\nmlflow.pyfunc.load_model("{self.uri}").predict({texts})'),
            "Serve it": ("bash", f"mlflow models serve --model-uri '{self.uri}' --env-manager local --port 5001"),
            "Ask the server": (
                "bash",
                "curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' "
                f"-d '{{\"inputs\": {texts}}}'",
            ),
            "Score a table in Spark": (
                "python",
                f'mlflow.pyfunc.spark_udf(spark, "{self.uri}", result_type="{result}")',
            ),
            "Score a file": (
                "bash",
                f"mlflow-llmops score --model '{self.uri}' --score-input rows.parquet --score-output scored.parquet",
            ),
        }


def card_uri(run_id: str) -> str:
    """Where the card of the version that a run made lies."""
    return f"runs:/{run_id}/{names.CARD_TEXT}"


def log_card(card: ModelCard) -> None:
    """Write both forms into the run that made the model, which may have ended."""
    client = MlflowClient()
    client.log_text(card.run_id, card.markdown(), names.CARD_TEXT)
    client.log_dict(card.run_id, card.as_json(), names.CARD)


def _machine() -> dict[str, str]:
    return {
        key: value for key, value in hardware_tags().items() if key.startswith((names.HARDWARE, names.RUNTIME_PREFIX))
    }
