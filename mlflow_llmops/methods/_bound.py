"""What every bound on a loss of quality needs, whichever method searches for what holds it."""

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import DataError
from mlflow_llmops.models.tasks import task_named
from mlflow_llmops.models.text_model import TextModel


def check_measurable(max_quality_drop: float | None, model: TextModel, data: Splits) -> None:
    """Raises DataError where a bound is given and dev cannot tell whether it holds."""
    labelled = not task_named(model.task).labelled or bool(data.dev.labels)
    if max_quality_drop is not None and not (len(data.dev) and labelled):
        raise DataError("max_quality_drop needs a dev split with labels, and this data has none; give one or no bound")
