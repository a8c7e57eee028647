"""`mlflow.model_evaluator`: `mlflow.models.evaluate(uri, data, targets="label", evaluators="llmops")`.

It runs inside `import mlflow`, so everything of ours is imported when it evaluates.
"""

from typing import Any

from mlflow.models.evaluation.base import EvaluationResult, ModelEvaluator

CLASSIFIERS, WRITERS = ("classifier", "text-classification"), ("text-generation",)
"""Values of `model_type`. MLflow asks every evaluator where none is named, so those that it uses for text are not
among them: to have us installed must not ask somebody's paid endpoint twice."""


class LLMOpsEvaluator(ModelEvaluator):
    """The metrics of our own runs, for any classifier of texts that gives a `label` column (or labels alone); for what
    writes text how near it comes to the targets, and its answers."""

    @classmethod
    def can_evaluate(cls, *, model_type: str, evaluator_config: Any, **kwargs: Any) -> bool:
        return model_type in (*CLASSIFIERS, *WRITERS)

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

        from mlflow_llmops import names
        from mlflow_llmops.errors import ConfigError
        from mlflow_llmops.measure.measurement import flat
        from mlflow_llmops.tracking.evaluation import evaluate_pyfunc, evaluate_writer

        if extra_metrics or custom_artifacts:
            raise ConfigError("evaluators=llmops computes its own metrics; give extra_metrics to the default evaluator")
        truth = [str(label) for label in dataset.labels_data] if dataset.has_targets else None
        seconds, client = (evaluator_config or {}).get("seconds"), MlflowClient()
        if model_type in WRITERS:
            measured, rows = evaluate_writer(model, dataset.features_data, truth, dataset.predictions_data, seconds)
            client.log_dict(run_id, {"rows": rows}, names.ANSWERS)
        elif truth is None:
            raise ConfigError("evaluators=llmops needs the true labels: give targets='<column>'")
        else:
            measured = evaluate_pyfunc(model, dataset.features_data, truth, dataset.predictions_data, seconds)
        metrics = flat(measured)
        for name, value in metrics.items():
            client.log_metric(run_id, name, value)
        return EvaluationResult(metrics=metrics, artifacts={}, run_id=run_id)
