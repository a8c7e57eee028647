"""An exported causal model as a pyfunc is a drop-in for the torch one, and needs neither torch nor transformers."""

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import get_model_info

from mlflow_llmops.errors import ConfigError
from mlflow_llmops.flavors.by_kind import save_text_model
from mlflow_llmops.measure.generation import prompts_of

AWKWARD = ["", "42", "None", "['a', 'b']", "{'text': 'x'}", "the boat " * 500, None, float("nan")]
PARAMS = [
    {},
    {"max_new_tokens": 1},
    {"temperature": 0.8, "top_p": 0.9, "seed": 3},
    {"stop": ["the", "and"]},
]


@pytest.fixture(scope="module")
def both(tiny_decoder, tiny_exported_decoder, tmp_path_factory):
    """Folders of the same network, in torch and exported."""
    folder = tmp_path_factory.mktemp("both")
    save_text_model(tiny_decoder, folder / "torch")
    save_text_model(tiny_exported_decoder, folder / "exported")
    return folder


@pytest.fixture(scope="module")
def pair(both):
    return [mlflow.pyfunc.load_model(str(both / name)) for name in ("torch", "exported")]


@pytest.mark.parametrize("params", PARAMS, ids=lambda params: "-".join(params) or "greedy")
def test_both_write_the_same(pair, tiny_texts, params):
    prompts = [*prompts_of(tiny_texts.test.texts, 6), *AWKWARD]
    mine, theirs = (list(model.predict(pd.DataFrame({"any": prompts}), params=params)) for model in pair)
    assert mine == theirs
    assert pd.isna(mine[-2]) and pd.isna(mine[-1])
    assert all(isinstance(text, str) for text in mine[:-2]) and any(mine[:6])


def test_params_do_what_they_say(pair, tiny_texts):
    prompts = list(prompts_of(tiny_texts.test.texts, 6))
    greedy, short, sampled, stopped = (pair[1].predict(prompts, params=params) for params in PARAMS)
    assert all(whole.startswith(text) for whole, text in zip(greedy, short, strict=True)) and short != greedy
    assert sampled != greedy and sampled != pair[1].predict(prompts, params={**PARAMS[2], "seed": 4})
    assert not any(word in text for text in stopped for word in ("the", "and")) and stopped != greedy
    with pytest.raises(ConfigError, match="^temperature=-1.0: "):
        pair[1].predict(prompts, params={"temperature": -1.0})


def test_both_have_one_signature(both):
    ours, theirs = (get_model_info(str(both / name)).signature for name in ("torch", "exported"))
    assert ours == theirs
    names = {"max_new_tokens", "temperature", "top_p", "stop", "seed"}
    assert {param.name for param in ours.params.params} == names


@pytest.mark.parametrize("given", ["the tide", ["a", "b"], pd.Series(["a"]), np.array(["a", "b"])], ids=repr)
def test_it_takes_prompts_in_every_shape(pair, given):
    assert len(pair[1].predict(given)) == (1 if isinstance(given, str) else len(given))


def test_a_worker_that_writes_imports_neither_torch_nor_transformers(both, imported_by):
    found = imported_by(both / "exported", ["the boat"], params={"temperature": 1.0})
    assert not {"torch", "transformers", "datasets", "nncf"} & found


def test_no_file_of_it_is_a_pickle(both):
    for path in both.rglob("*"):
        assert path.is_dir() or not path.read_bytes().startswith(b"\x80\x04"), path
