"""`mlflow.run_context_provider`: every run started in this environment says what machine it ran on.

MLflow is half-initialised when it imports this file: nothing of it but the base class may be imported here.
"""

from mlflow.tracking.context.abstract_context import RunContextProvider

from mlflow_llmops.hardware import hardware_tags


class HardwareContext(RunContextProvider):
    """Adds the tags of `hardware_tags` to new runs."""

    def in_context(self) -> bool:
        return True

    def tags(self) -> dict[str, str]:
        return hardware_tags()
