"""Causal models leave torch with their cache: same logits at every length, with and without a past."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM

from mlflow_llmops.engines.artifact import ExportedArtifact
from mlflow_llmops.errors import ArtifactMismatch, ModelError
from mlflow_llmops.measure.generation import complete, prompts_of
from mlflow_llmops.measure.likelihood import likelihoods
from mlflow_llmops.methods._exported_decoder import check_reading
from mlflow_llmops.methods.table import build
from mlflow_llmops.models.load import load


@pytest.fixture(scope="module")
def gpt2(tiny_decoder):
    """Another family: learned positions, which must be told where padding stands, and its own names for everything."""
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}
    config = GPT2Config(vocab_size=len(tiny_decoder.tokenizer), **shape, **ids)
    return tiny_decoder.with_net(GPT2LMHeadModel(config).eval())


@pytest.mark.parametrize("kind", ["openvino", "onnx"])
def test_gpt2_writes_and_reads_as_in_torch(gpt2, tiny_texts, tmp_path, kind):
    exported = build(f"export.{kind}", {}).apply(gpt2, tiny_texts, tmp_path)
    prompts = prompts_of(tiny_texts.test.texts, 8)
    mine, theirs = complete(gpt2, prompts), complete(exported, prompts)
    assert [each.ids for each in theirs] == [each.ids for each in mine]
    assert len({tuple(each.ids) for each in mine}) > 4


def test_one_file_of_weights_and_all_that_a_worker_must_know(tiny_decoder, tiny_exported_decoder):
    folder = tiny_exported_decoder.folder
    artifact = ExportedArtifact.read(folder)
    assert artifact.task == "text-generation"
    assert artifact.end_ids == (tiny_decoder.tokenizer.eos_token_id,)
    weights = 4 * artifact.parameters
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    [kept] = [size for name, size in files.items() if name.endswith((".bin", ".data"))]
    # the embedding is tied to the output layer, and neither the prompt's nor the next token's graph has its own copy
    assert 0.95 * weights < kept < 1.1 * weights


def test_it_loads_again_and_holds_texts_as_likely(tiny_decoder, tiny_exported_decoder, tiny_texts):
    loaded = load(str(tiny_exported_decoder.folder), "text-generation")
    assert (loaded.kind, loaded.end_ids) == (tiny_exported_decoder.kind, tiny_decoder.end_ids)
    texts = [*tiny_texts.test.texts, "rain " * 200, "unheard of: Ünïcode?"]
    mine, theirs = likelihoods(tiny_decoder, texts), likelihoods(loaded, texts)
    for expected, got in zip(mine.log, theirs.log, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_the_check_of_reading_sees_a_model_that_forgets_and_one_that_misplaces(tiny_decoder):
    """Each planted fault shows with a past or with padding only: at once and alone, both models are as they were."""
    decoder = tiny_decoder.run

    class Forgetful:
        """Its second step does not see the first."""

        def __call__(self, inputs):
            return decoder(inputs)

        def begin(self):
            def read(input_ids, mask, rows=None):
                return decoder.begin()(input_ids, mask[:, -input_ids.shape[1] :])

            return read

    class Misplacing(Forgetful):
        """It does not drop the texts that left."""

        def begin(self):
            reader = decoder.begin()

            def read(input_ids, mask, rows=None):
                return reader(input_ids, mask, None if rows is None else rows - 1)

            return read

    for planted in (Forgetful(), Misplacing()):
        other = replace(tiny_decoder)
        object.__setattr__(other, "run", planted)
        with pytest.raises(ArtifactMismatch, match="reading on after"):
            check_reading(tiny_decoder, other)
    check_reading(tiny_decoder, tiny_decoder)


def test_a_network_with_another_kind_of_memory_is_refused_with_those_that_work(tiny_decoder, tiny_texts, tmp_path):
    config = MambaConfig(vocab_size=len(tiny_decoder.tokenizer), hidden_size=16, num_hidden_layers=1, pad_token_id=0)
    mamba = tiny_decoder.with_net(MambaForCausalLM(config).eval())
    with pytest.raises(ModelError, match="^MambaForCausalLM cannot be exported: [^\n]*GPT-2[^\n]*Llama"):
        build("export.openvino", {}).apply(mamba, tiny_texts, tmp_path)
    # in torch it goes on writing, by reading all anew
    assert complete(mamba, ["the boat"], 4)[0].ids == _greedy(mamba, "the boat", 4)


def _greedy(model, prompt, new):
    ids = model.tokenizer(prompt)["input_ids"]
    for _ in range(new):
        with torch.no_grad():
            ids = [*ids, int(model.network(torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[-new:]
