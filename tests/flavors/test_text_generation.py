"""The logged causal model answers with completions alone, greedily, alone and together."""

import mlflow
import pandas as pd
import pytest

from mlflow_llmops.flavors import text
from mlflow_llmops.measure.generation import complete, prompts_of
from mlflow_llmops.models.load import load


@pytest.fixture(scope="module")
def saved(tiny_decoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoder") / "model"
    text.save_model(tiny_decoder, folder)
    return folder


@pytest.fixture(scope="module")
def pyfunc(saved):
    return mlflow.pyfunc.load_model(str(saved))


@pytest.fixture(scope="module")
def prompts(tiny_texts):
    return list(prompts_of(tiny_texts.test.texts, 7))


def test_every_form_of_input_gives_the_completions(pyfunc, tiny_decoder, prompts):
    expected = [each.text for each in complete(tiny_decoder, prompts)]
    assert any(expected)
    for given in (prompts, pd.Series(prompts), pd.DataFrame({"prompt": prompts})):
        assert list(pyfunc.predict(given)) == expected
    assert [pyfunc.predict([prompt])[0] for prompt in prompts] == expected


def test_the_number_of_new_tokens_is_a_parameter(pyfunc, tiny_decoder, prompts):
    for count in (1, 3):
        expected = [each.text for each in complete(tiny_decoder, prompts, new_tokens=count)]
        assert pyfunc.predict(prompts, params={"max_new_tokens": count}) == expected


def test_a_prompt_without_end_keeps_its_last_words(pyfunc, tiny_decoder, prompts):
    long = "the boat and the sail near the old island " * 30
    assert pyfunc.predict([long, prompts[0]]) == [each.text for each in complete(tiny_decoder, [long, prompts[0]])]


def test_saving_leaves_the_model_in_memory_alone(tiny_decoder, saved):
    assert tiny_decoder.tokenizer.padding_side == "right"
    assert tiny_decoder.network.generation_config.max_new_tokens is None
    loaded = load(str(saved / "model"), "text-generation", tokenizer=str(saved / "components" / "tokenizer"))
    assert (loaded.max_length, loaded.pad_id) == (tiny_decoder.max_length, tiny_decoder.pad_id)


def test_mlflow_alone_loads_it(saved, prompts):
    pipeline = mlflow.transformers.load_model(str(saved))
    assert type(pipeline.model).__name__ == "LlamaForCausalLM"
    assert pipeline(prompts[0], do_sample=False, max_new_tokens=4)[0]["generated_text"].startswith(prompts[0])
