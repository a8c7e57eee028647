"""The builtin causal model: any text survives its tokenizer, and it is made for its task alone."""

import pytest
import torch

from mlflow_llmops.errors import ConfigError, ModelError
from mlflow_llmops.methods._rows import encode
from mlflow_llmops.models.load import load


@pytest.fixture(scope="module")
def decoder(tiny_texts):
    torch.manual_seed(0)
    return load("builtin:decoder", "text-generation", texts=tiny_texts.train)


def test_bytes_bring_every_text_back(decoder):
    for text in ("rain and wind", "Naïve café — 東京 🚗\n\tdef f(x): return x", " two  spaces "):
        ids = decoder.tokenizer(text)["input_ids"]
        assert ids[0] == decoder.tokenizer.bos_token_id and decoder.tokenizer.eos_token_id not in ids
        assert decoder.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_texts_that_are_trained_on_end_unless_they_were_cut(decoder):
    whole, cut = encode(decoder, ["rain and wind", "rain and wind " * 100])
    assert whole[-1] == decoder.tokenizer.eos_token_id
    assert len(cut) == decoder.max_length and cut[-1] != decoder.tokenizer.eos_token_id


def test_it_is_fresh_and_saves_as_a_stock_llama(decoder, tmp_path):
    assert decoder.fresh and decoder.labels == ()
    decoder.save(tmp_path)
    loaded = load(str(tmp_path), "text-generation")
    assert type(loaded.network).__name__ == "LlamaForCausalLM"
    assert (loaded.max_length, loaded.pad_id) == (decoder.max_length, decoder.pad_id)
    assert loaded.tokenizer("rain")["input_ids"] == decoder.tokenizer("rain")["input_ids"]


def test_another_task_and_missing_texts_are_told():
    with pytest.raises(ConfigError, match="^model=builtin:decoder is for task=text-generation, not for task=text-cl"):
        load("builtin:decoder", "text-classification")
    with pytest.raises(ConfigError, match="^model=builtin:decoder is not trained: finetune trains it"):
        load("builtin:decoder", "text-generation")


def test_an_encoder_is_no_causal_model(tiny_folder, tiny_texts):
    with pytest.raises(ModelError, match="its tokens see those that follow, so it cannot write text"):
        load(str(tiny_folder), "text-generation", texts=tiny_texts.train)
