"""What an upgrade must not break: versions that were registered before it, and a rollback those registered after it."""

import json

import mlflow
import pandas as pd
import pytest
import yaml

from mlflow_llmops import names
from mlflow_llmops.engines.artifact import DESCRIPTION
from mlflow_llmops.flavors import exported_text
from mlflow_llmops.flavors._chain_settings import SETTINGS as CHAIN
from mlflow_llmops.flavors._chain_settings import ChainSettings
from mlflow_llmops.flavors._chat_settings import SETTINGS as CHAT
from mlflow_llmops.flavors._chat_settings import ChatSettings

TEXTS = ["oven and butter", "the boat in the harbour", "rain and wind today with fog"]
FIRST = {"kind", "task", "labels", "max_length", "pad_id", "parameters", "nonzero_parameters", "precision"}
"""What llmops.json held in the first commit that wrote one; MLmodel had no config of the engine then."""
LOADERS = {
    "mlflow_llmops.flavors.exported_text",
    "mlflow_llmops.flavors.text",
    "mlflow_llmops.flavors.openai_chat",
    "mlflow_llmops.flavors.langchain_chain",
}
"""MLmodel files name them."""
STORED_NAMES = """
Archived Production Staging _high _in_same_runtime _loss _low _of_runtime accuracy_control.json answers.json baseline/
chain/passages challenger champion comparison.html comparison.json comparison.md confusion.png control/drop_on_dev
control/fraction control/layers_left control/speed_beside_all_quantized cost/per_thousand_texts dev_loss doctor.json
endpoint/calls endpoint/completion_tokens endpoint/cost endpoint/cost_per_call endpoint/failed_rows
endpoint/prompt_tokens energy/joules_per_text examples.json fraction_curve.png fraction_search.json from_scratch
from_scratch/ gate.json gate.md grad_norm kept latency/cold_start_s latency/first_token_p50_ms
latency/generation_p50_ms latency/next_token_p50_ms latency/p50_ms latency/p95_as_asked_ms latency/p95_ms
latency/p99_ms learning_rate lengths.md llmops.best_so_far llmops.chain llmops.chain_fingerprint llmops.comparisons
llmops.continued_in llmops.data_fingerprint llmops.endpoint llmops.error llmops.event. llmops.evidence_run
llmops.git_commit llmops.hardware llmops.hardware. llmops.hardware_warning llmops.kept. llmops.kind llmops.licence
llmops.measuring llmops.method llmops.model_card llmops.notes llmops.overlap_kept llmops.overlap_removed
llmops.promoted_at llmops.promoted_by llmops.promoted_from llmops.promoted_in_run llmops.promoted_to
llmops.promoted_why llmops.recommended llmops.reloaded llmops.replaced_by llmops.runtime. llmops.scored_digest
llmops.scored_version llmops.source_model llmops.source_model_id llmops.split llmops.task llmops.verb llmops.verdict
loss measurements.json memory/peak_mib model model_card.json model_card.md pareto.html pareto.png per_class.md
quality/accuracy quality/agreement quality/answers_repeated quality/batch_drift quality/calibration_error
quality/change quality/change_to_tfidf quality/completions_alike quality/exact_match quality/f1_macro
quality/finer_texts quality/padding_drift quality/perplexity quality/retained quality/rouge_l quality/texts
quality/tfidf_accuracy quality/token_accuracy ratio/break_even_tokens ratio/compressed_size ratio/decode_speedup
ratio/generation_speedup ratio/latency_speedup ratio/next_token_speedup ratio/prefill_speedup ratio/size ratio/speedup
ratio/speedup_as_asked ratio/speedup_in_same_runtime ratio/speedup_of_runtime recover report.md scoring/errors
scoring/rows scoring/rows_per_s search/seconds search/trials sequence/completion_tokens sequence/errors
sequence/planned_prompt_tokens sequence/planned_requests sequence/prompt_tokens sequence/requests size/compressed_mib
size/disk_mib size/nonzero_parameters size/parameters size/sparsity speed_grid.json speed_grid.md speed_grid.png
throughput/decode_tokens_per_s throughput/generated_tokens_per_s throughput/texts_per_s
throughput/texts_per_s_as_asked throughput/tokens_per_s train trials.json trials.md untrained/
"""


@pytest.fixture
def saved(tiny_exported, tmp_path):
    """A version and its answers."""
    exported_text.save_model(tiny_exported.folder, tmp_path / "model")
    return tmp_path / "model", mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(TEXTS)


def test_a_version_of_the_first_format_loads_and_answers_alike(saved):
    folder, answers = saved
    rewrite(folder / "artifact" / DESCRIPTION, lambda stored: {key: stored[key] for key in FIRST})
    described = yaml.safe_load((folder / "MLmodel").read_text())
    del described["flavors"]["python_function"]["config"]
    (folder / "MLmodel").write_text(yaml.safe_dump(described))
    pd.testing.assert_frame_equal(mlflow.pyfunc.load_model(str(folder)).predict(TEXTS), answers)


def test_what_a_later_format_adds_is_no_obstacle(saved):
    folder, answers = saved
    rewrite(folder / "artifact" / DESCRIPTION, lambda stored: {**stored, "of_tomorrow": 1})
    pd.testing.assert_frame_equal(mlflow.pyfunc.load_model(str(folder)).predict(TEXTS), answers)


def test_settings_of_endpoints_and_chains_are_read_with_fewer_and_with_more_fields(tmp_path):
    (tmp_path / CHAT).write_text(json.dumps({"model": "m", "prompt": "{text}", "of_tomorrow": 1}))
    asked = ChatSettings("m", "{text}")
    assert ChatSettings.read(tmp_path) == asked
    stored = {"chain": "translate", "endpoint": {"model": "m", "prompt": "{text}"}, "of_tomorrow": 1}
    (tmp_path / CHAIN).write_text(json.dumps(stored))
    assert ChainSettings.read(tmp_path) == ChainSettings("translate", asked)


@pytest.mark.parametrize("module", sorted(LOADERS))
def test_the_modules_that_stored_models_name_are_there(module):
    assert callable(__import__(module, fromlist=["_load_pyfunc"])._load_pyfunc)


def test_no_stored_name_is_renamed():
    """Runs, versions and artifacts of releases before are found by these; new names need not stand here until then."""
    now = {value for value in vars(names).values() if isinstance(value, str)}
    assert set(STORED_NAMES.split()) <= now


def rewrite(file, change):
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
