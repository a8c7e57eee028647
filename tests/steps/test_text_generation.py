"""Runs of causal models end to end: measured, proven, registered, and a version that completes prompts."""

import mlflow
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from transformers import AutoModelForCausalLM, AutoTokenizer

from mlflow_llmops import names
from mlflow_llmops.errors import ArtifactMismatch, ConfigError, GateFailed
from mlflow_llmops.measure.generation import complete, prompts_of
from mlflow_llmops.models.load import load
from mlflow_llmops.steps.compare import compare
from mlflow_llmops.steps.compress import compress
from mlflow_llmops.steps.promote import promote

CAUSAL = {"task": "text-generation", "measure_seconds": 1}
MEASURED = (
    *(names.PERPLEXITY, names.TEXTS_PER_S, names.TOKENS_PER_S, names.LATENCY_P50, names.LATENCY_P95),
    *(names.GENERATED_TOKENS_PER_S, names.GENERATION_P50),
    *(names.FIRST_TOKEN_P50, names.NEXT_TOKEN_P50, names.DECODE_TOKENS_PER_S),
)
RATIOS = (
    *(names.SPEEDUP, names.GENERATION_SPEEDUP, names.PREFILL_SPEEDUP, names.DECODE_SPEEDUP, names.NEXT_TOKEN_SPEEDUP),
    *(names.QUALITY_CHANGE, names.RETAINED, names.AGREEMENT),
)


@pytest.fixture
def distilled(store, tiny_decoder_folder, tiny_data):
    outcome = compress(
        *("distill", "logits", str(tiny_decoder_folder), str(tiny_data)),
        **CAUSAL,
        register_as="writer",
        options={"student": "layers:1", "epochs": "2"},
    )
    return mlflow.get_run(outcome.run_id)


@pytest.mark.slow
def test_one_run_holds_everything(distilled, tiny_decoder, tiny_texts):
    metrics, tags = distilled.data.metrics, distilled.data.tags
    for name in MEASURED:
        assert metrics[name + names.LOW] <= metrics[name] <= metrics[name + names.HIGH]
        assert names.BASELINE_PREFIX + name in metrics
    for name in RATIOS:
        assert metrics[name + names.LOW] <= metrics[name] <= metrics[name + names.HIGH]
    assert metrics[names.QUALITY_TEXTS] == len(tiny_texts.test)
    ratio = metrics[names.BASELINE_PREFIX + names.PERPLEXITY] / metrics[names.PERPLEXITY]
    assert metrics[names.RETAINED] == pytest.approx(ratio)
    assert metrics[names.SIZE_RATIO] < 1
    assert names.ACCURACY not in metrics
    assert tags[names.TASK] == "text-generation"
    assert tags[names.RELOADED] == "same outputs"
    assert "of the size" in tags[names.VERDICT]
    report = mlflow.artifacts.load_text(f"runs:/{distilled.info.run_id}/{names.REPORT}")
    assert "perplexity" in report and "written tokens/s" in report and "accuracy" not in report


@pytest.mark.slow
def test_its_version_completes_prompts_without_an_echo(distilled, tiny_texts):
    version = MlflowClient().get_model_version("writer", "1")
    assert version.tags[names.TASK] == "text-generation"
    folder = mlflow.artifacts.download_artifacts("models:/writer/1")
    network = AutoModelForCausalLM.from_pretrained(f"{folder}/model")
    tokenizer = AutoTokenizer.from_pretrained(f"{folder}/components/tokenizer")
    model = load(f"{folder}/model", "text-generation", tokenizer=f"{folder}/components/tokenizer")
    assert type(network).__name__ == "LlamaForCausalLM" and tokenizer.padding_side == "left"
    prompts = prompts_of(tiny_texts.test.texts, 5)
    expected = [completion.text for completion in complete(model, prompts)]
    scorer = mlflow.pyfunc.load_model("models:/writer/1")
    for given in (list(prompts), pd.Series(prompts), pd.DataFrame({"any": prompts})):
        assert list(scorer.predict(given)) == expected
    assert not any(text.startswith(prompt) for text, prompt in zip(expected, prompts, strict=True) if text)


@pytest.mark.slow
def test_the_builtin_decoder_is_trained_and_a_comparison_leads_past_the_gate(store, tiny_data, tiny_decoder_folder):
    small = {**CAUSAL, "register_as": "writer"}
    first = compress("finetune", "full", "builtin:decoder", str(tiny_data), **small, options={"epochs": "1"})
    metrics = mlflow.get_run(first.run_id).data.metrics
    assert metrics[names.PERPLEXITY] < metrics[names.BASELINE_PREFIX + names.PERPLEXITY] / 2
    compress("finetune", "full", str(tiny_decoder_folder), str(tiny_data), **small, options={"epochs": "0"})

    # the vocabularies differ, so they are compared by character
    outcome = compare("writer", "1,2", str(tiny_data), measure_seconds=1)
    one, two = outcome.values["rows"]
    assert names.QUALITY_CHANGE in two.measured and names.AGREEMENT not in two.measured
    assert names.TFIDF_ACCURACY not in one.measured
    assert two.measured[names.QUALITY_CHANGE].low > 0  # six epochs against one
    with pytest.raises(GateFailed, match="speed-up at least 100"):
        promote("writer", "2", max_quality_drop=0.0, min_speedup=100.0)
    promote("writer", "2", max_quality_drop=0.0, min_speedup=0.0)


def test_a_model_that_reloads_differently_fails_the_run(store, tiny_decoder_folder, tiny_data, monkeypatch):
    from copy import deepcopy

    from torch.nn.utils import prune

    from mlflow_llmops.methods.finetune.full import Full

    def leave_masks(self, model, data, folder, seed=0):
        net = deepcopy(model.network)
        prune.l1_unstructured(net.model.layers[0].mlp.down_proj, "weight", amount=0.3)
        return model.with_net(net)

    monkeypatch.setattr(Full, "apply", leave_masks)
    with pytest.raises(ArtifactMismatch):
        compress("finetune", "full", str(tiny_decoder_folder), str(tiny_data), **CAUSAL, register_as="w", options={})
    assert MlflowClient().search_registered_models() == []


@pytest.mark.parametrize(("verb", "method"), [("quantize", "int8_dynamic"), ("quantize", "int8_static")])
def test_methods_for_classifiers_alone_are_refused_at_once(store, tiny_decoder_folder, verb, method):
    with pytest.raises(ConfigError, match="^task=text-generation: [^\n]*choose"):
        compress(verb, method, str(tiny_decoder_folder), "no/such/data.csv", **CAUSAL, options={})


@pytest.mark.slow
def test_an_exported_version_is_measured_proven_registered_and_compared(store, tiny_decoder_folder, tiny_data):
    small = {**CAUSAL, "register_as": "writer"}
    exported = compress("export", "openvino", str(tiny_decoder_folder), str(tiny_data), **small, options={})
    compress("finetune", "full", str(tiny_decoder_folder), str(tiny_data), **small, options={"epochs": "0"})
    run = mlflow.get_run(exported.run_id)
    metrics, tags = run.data.metrics, run.data.tags
    for name in (*MEASURED, *RATIOS):
        assert metrics[name + names.LOW] <= metrics[name] <= metrics[name + names.HIGH]
    assert (tags[names.KIND], tags[names.RELOADED]) == ("openvino", "same outputs")
    assert abs(metrics[names.QUALITY_CHANGE]) < 1e-4 and metrics[names.AGREEMENT] > 0.999
    report = mlflow.artifacts.load_text(f"runs:/{exported.run_id}/{names.REPORT}")
    assert "ms to the first token" in report and "tokens/s after it" in report

    one, two = compare("writer", "2,1", str(tiny_data), measure_seconds=1).values["rows"]
    assert (one.kind, two.kind) == ("torch", "openvino")
    assert two.measured[names.DECODE_SPEEDUP].high > 0
    prompts = ["the boat", "42", "rain"]
    answers = [mlflow.pyfunc.load_model(f"models:/writer/{version}").predict(prompts) for version in (1, 2)]
    assert answers[0] == answers[1]


def test_versions_of_different_tasks_are_not_compared(store, tiny_model, tiny_decoder, tiny_data):
    from mlflow_llmops.flavors.by_kind import log_text_model
    from mlflow_llmops.registry.versions import register

    for model in (tiny_model, tiny_decoder):
        with mlflow.start_run():
            register(log_text_model(model).model_uri, "mixed", {})
    with pytest.raises(ConfigError, match="different tasks cannot be compared: v1 model is for text-classification"):
        compare("mixed", "1,2", str(tiny_data))
