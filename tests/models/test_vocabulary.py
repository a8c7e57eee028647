"""The vocabulary of a builtin model depends on its texts alone, in every process."""

import subprocess
import sys

import pytest

CODE = """
import hashlib
from mlflow_llmops.data.texts import Texts
from mlflow_llmops.models.scratch import small_encoder
from mlflow_llmops.models.scratch_decoder import small_decoder
words = [a + b + c for a in "bcdfg" for b in "aeiou" for c in "klmnp"]
texts = Texts(tuple(" ".join(words[i % 125 : i % 125 + 7]) + f" {i}" for i in range(400)), ("x", "y") * 200)
tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
for model in (small_encoder(texts, ("x", "y"), 200, **tiny), small_decoder(texts, vocabulary=400, **tiny)):
    print(hashlib.sha256(repr(sorted(model.tokenizer.get_vocab().items())).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def hashes() -> list[list[str]]:
    command = [sys.executable, "-c", CODE]
    return [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(3)]


@pytest.mark.parametrize("model", [0, 1], ids=["encoder", "decoder"])
def test_every_process_learns_the_same_pieces(hashes, model):
    assert len({found[model] for found in hashes}) == 1
