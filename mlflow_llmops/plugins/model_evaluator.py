"""`mlflow.model_evaluator`: `mlflow.models.evaluate(uri, data, targets="label", evaluators="llmops")`.

It runs inside `import mlflow`, so everything of ours is imported when it evaluates.
"""

from typing import Any

from mlflow.models.evaluation.base import EvaluationResult, ModelEvaluator

MODEL_TYPES = ("classifier", "text-classification")


class LLMOpsEvaluator(ModelEvaluator):
    """The metrics of our own runs, for any classifier of texts that gives a `label` column (or labels alone)."""

    @classmethod
    def can_evaluate(cls, *, model_type: str, evaluator_config: Any, **kwargs: Any) -> bool:
        return model_type in MODEL_TYPES

    def evaluate(
        self,
        *,
        model_type: str,
        dataset: Any,
        run_id: str,
        evaluator_config: Any,
        model: Any = None,
        extra_metrics: Any = None,
        custom_artifacts: Any = None,
        predictions: Any = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        from mlflow.tracking import MlflowClient

        from mlflow_llmops.errors import ConfigError
        from mlflow_llmops.measure.measurement import flat
        from mlflow_llmops.tracking.evaluation import evaluate_pyfunc

        if extra_metrics or custom_artifacts:
            raise ConfigError("evaluators=llmops computes its own metrics; give extra_metrics to the default evaluator")
        if not dataset.has_targets:
            raise ConfigError("evaluators=llmops needs the true labels: give targets='<column>'")
        texts, truth = dataset.features_data, [str(label) for label in dataset.labels_data]
        seconds = (evaluator_config or {}).get("seconds")
        metrics = flat(evaluate_pyfunc(model, texts, truth, dataset.predictions_data, seconds))
        client = MlflowClient()
        for name, value in metrics.items():
            client.log_metric(run_id, name, value)
        return EvaluationResult(metrics=metrics, artifacts={}, run_id=run_id)
