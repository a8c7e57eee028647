"""Vectors of a torch classifier over HTTP, against the network's own hidden states."""

from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from openai import OpenAI
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mlflow_llmops.flavors.by_kind import save_text_model
from tests.serving.conftest import serving

TEXTS = ["the boat and the sail", "an oven with butter and flour and a very old pan near the soup", "rain", "rain"]


def test_openais_client_gets_the_mean_of_the_last_hidden_states(tiny_model, tmp_path: Path):
    save_text_model(tiny_model, tmp_path / "torch")
    with serving(str(tmp_path / "torch"), tmp_path, "--max-texts", "10") as running:
        with OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0) as client:
            answer = client.embeddings.create(model="torch", input=TEXTS)  # base64, unless told otherwise
            plain = client.embeddings.create(model="torch", input=TEXTS[0], encoding_format="float")
        labelled = httpx.post(f"{running.url}/v1/classify", json={"model": "torch", "input": TEXTS}, timeout=60).json()
    folder = tmp_path / "torch"
    tokenizer = AutoTokenizer.from_pretrained(folder / "components" / "tokenizer")
    network = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    tokens = 0
    for text, found in zip(TEXTS, answer.data, strict=True):
        ids = tokenizer(text, return_tensors="pt")
        tokens += ids["input_ids"].shape[1]
        with torch.inference_mode():
            mean = network(**ids, output_hidden_states=True).hidden_states[-1].mean(dim=1)[0].numpy()
        np.testing.assert_allclose(found.embedding, mean / np.linalg.norm(mean), atol=1e-5)
    assert [each.index for each in answer.data] == [0, 1, 2, 3] and answer.usage.prompt_tokens == tokens
    np.testing.assert_allclose(plain.data[0].embedding, answer.data[0].embedding, atol=1e-6)
    assert len(labelled["data"]) == len(TEXTS) == len(answer.data)
    assert answer.data[2].embedding == pytest.approx(answer.data[3].embedding)
