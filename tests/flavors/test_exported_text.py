"""The flavor of exported models is a drop-in for the transformers flavor, and needs neither torch nor transformers."""

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import get_model_info

from mlflow_llmops.flavors import exported_text, text

HEAVY = {"torch", "transformers", "datasets", "nncf"}
TEXTS = ["oven and butter", "the boat in the harbour", "rain and wind today with fog", "oven and butter", ""]


@pytest.fixture(scope="module")
def both(tiny_model, tiny_exported, tmp_path_factory):
    """The same network in both flavors, on disk."""
    folder = tmp_path_factory.mktemp("both")
    text.save_model(tiny_model, folder / "text")
    exported_text.save_model(tiny_exported.folder, folder / "exported")
    return folder


def test_it_answers_as_the_transformers_flavor_does(both):
    ours, theirs = (mlflow.pyfunc.load_model(str(both / name)).predict(TEXTS) for name in ("exported", "text"))
    assert list(ours.columns) == list(theirs.columns) == ["label", "score"]
    assert list(ours["label"]) == list(theirs["label"])
    assert np.allclose(ours["score"], theirs["score"], atol=1e-4)


def test_both_flavors_have_one_signature(both):
    ours, theirs = (get_model_info(str(both / name)).signature for name in ("exported", "text"))
    assert ours == theirs


@pytest.mark.parametrize(
    "given",
    [TEXTS, pd.Series(TEXTS), pd.DataFrame({"any name": TEXTS}), np.array(TEXTS)],
    ids=lambda x: type(x).__name__,
)
def test_it_takes_texts_in_every_shape_that_mlflow_hands_over(both, given):
    model = mlflow.pyfunc.load_model(str(both / "exported"))
    assert len(model.predict(given)) == len(TEXTS)


def test_a_null_text_gets_nulls_and_costs_no_other_row(tiny_exported):
    model = exported_text.ExportedText(tiny_exported.folder)
    answers = model.predict(pd.DataFrame({"text": [TEXTS[0], None, TEXTS[1], float("nan")]}))
    assert answers["label"].isna().tolist() == [False, True, False, True]
    assert answers["score"].isna().tolist() == [False, True, False, True]
    assert np.allclose(answers["score"][[0, 2]], model.predict([TEXTS[0], TEXTS[1]])["score"])


def test_no_text_at_all_gives_an_empty_table(tiny_exported):
    assert exported_text.ExportedText(tiny_exported.folder).predict([]).shape == (0, 2)


def test_a_worker_that_scores_imports_neither_torch_nor_transformers(both, imported_by):
    assert not HEAVY & imported_by(both / "exported", ["a text"])


def test_native_load_gives_logits(store, tiny_exported, tiny_texts):
    with mlflow.start_run():
        info = exported_text.log_model(tiny_exported.folder, name="model")
    loaded = exported_text.load_model(info.model_uri)
    logits = loaded.logits(tiny_texts.test.texts)
    assert logits.shape == (len(tiny_texts.test), len(tiny_texts.labels))
    right = [tiny_exported.labels[i] for i in logits.argmax(1)]
    assert np.mean(np.array(right) == np.array(tiny_texts.test.labels)) > 0.6


def test_no_artifact_of_either_flavor_holds_a_pickle(both):
    files = [path for path in both.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert path.suffix not in {".pkl", ".pickle", ".bin", ".pt", ".pth"} or path.name == "openvino_model.bin"
        assert not path.read_bytes().startswith(b"\x80\x04"), path


def test_requirements_name_the_runtime_and_no_torch(both):
    wanted = (both / "exported" / "requirements.txt").read_text()
    assert "openvino==" in wanted
    assert "torch" not in wanted
