"""What a task asks of a network. A new task is one more entry here and its measures in `measure/quality.py`."""

from dataclasses import dataclass
from typing import Any

from mlflow_llmops.errors import ConfigError


@dataclass(frozen=True)
class Task:
    """A transformers pipeline task; `auto_class` is the transformers class that loads its networks."""

    name: str
    auto_class: str
    labelled: bool
    head: str
    """What errors call the layers behind the base model."""

    def auto(self) -> Any:
        import transformers

        return getattr(transformers, self.auto_class)


TASKS = {
    task.name: task
    for task in (
        Task("text-classification", "AutoModelForSequenceClassification", True, "classification head"),
        Task("text-generation", "AutoModelForCausalLM", False, "language-model head"),
    )
}


def task_named(name: str) -> Task:
    """Raises ConfigError for a task that is not known."""
    if name not in TASKS:
        raise ConfigError(f"task={name} is not known; choose one of: {', '.join(TASKS)}")
    return TASKS[name]
