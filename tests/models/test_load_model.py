"""A model that was saved answers as it did, under the labels that are its own."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM as CausalLM
from transformers import (
    AutoModelForSequenceClassification,
    DebertaV2Config,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    RobertaConfig,
)

from mlflow_llmops.errors import ConfigError, ModelError
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.models.load import load
from mlflow_llmops.models.text_model import TextModel

SMALL = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
ENCODERS: list[PretrainedConfig] = [
    RobertaConfig(**SMALL, intermediate_size=32),
    DebertaV2Config(**SMALL, intermediate_size=32, pooler_hidden_size=32),
    DistilBertConfig(vocab_size=300, dim=32, n_layers=1, n_heads=2, hidden_dim=32),
    GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2),
]
TIED = [
    GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2),
    LlamaConfig(**SMALL, intermediate_size=32, tie_word_embeddings=True),
]
UNTIED = LlamaConfig(**SMALL, intermediate_size=32, tie_word_embeddings=False)


@pytest.fixture
def folder(tiny_model, tmp_path) -> str:
    tiny_model.save(tmp_path)
    return str(tmp_path)


def test_a_saved_model_answers_as_before(folder, tiny_model, tiny_texts):
    loaded = load(folder)
    assert loaded.labels == tiny_model.labels
    expected = scorer_of(tiny_model).logits(tiny_texts.dev.texts)
    assert (scorer_of(loaded).logits(tiny_texts.dev.texts) == expected).all()


@pytest.mark.parametrize("asked", [("weather", "kitchen", "sea"), ("sea", "kitchen"), ()])
def test_the_labels_keep_the_order_of_the_models_outputs(folder, tiny_model, tiny_texts, asked):
    loaded = load(folder, labels=asked)
    assert loaded.labels == tiny_model.labels
    expected = scorer_of(tiny_model).logits(tiny_texts.dev.texts)
    assert (scorer_of(loaded).logits(tiny_texts.dev.texts) == expected).all()


def test_more_labels_get_a_fresh_head_on_the_same_body(folder, tiny_model):
    torch.manual_seed(0)
    labels = ("kitchen", "sea", "sport", "weather")
    loaded = load(folder, labels=labels)
    assert loaded.labels == tuple(loaded.network.config.id2label.values()) == labels
    body = tiny_model.network.bert.state_dict()
    assert all(torch.equal(value, body[name]) for name, value in loaded.network.bert.state_dict().items())
    assert loaded.network.classifier.out_features == 4


def test_other_labels_of_the_same_number_get_a_fresh_head_on_the_same_body(folder, tiny_model):
    torch.manual_seed(0)
    labels = ("cheese", "sea", "sport")
    loaded = load(folder, labels=labels)
    assert loaded.labels == tuple(loaded.network.config.id2label.values()) == labels
    body, old = tiny_model.network.bert.state_dict(), tiny_model.network.classifier
    assert all(torch.equal(value, body[name]) for name, value in loaded.network.bert.state_dict().items())
    new = loaded.network.classifier
    assert not torch.isclose(new.weight, old.weight).any()
    assert new.weight.std().item() == pytest.approx(tiny_model.network.config.initializer_range, rel=0.3)
    assert (new.bias == 0).all()


@pytest.mark.parametrize("config", ENCODERS, ids=lambda config: config.model_type)
def test_a_fresh_head_is_the_last_layer_of_any_architecture(config, tiny_model, tmp_path):
    net = AutoModelForSequenceClassification.from_config(config)
    net.save_pretrained(tmp_path)
    tiny_model.tokenizer.save_pretrained(tmp_path)
    changed = {
        name
        for name, value in load(str(tmp_path), labels=("sea", "sport")).network.state_dict().items()
        if name.endswith("weight") and not torch.equal(value, net.state_dict()[name])
    }
    assert changed in ({"classifier.weight"}, {"classifier.out_proj.weight"}, {"score.weight"})


def test_a_base_model_without_a_head_is_for_finetune_only(tiny_model, tmp_path):
    tiny_model.save(tmp_path)
    tiny_model.network.bert.save_pretrained(tmp_path)
    assert load(str(tmp_path), labels=("a", "b", "c", "d")).network.classifier.out_features == 4
    assert load(str(tmp_path), labels=tiny_model.labels).labels == tiny_model.labels
    refused(
        r"model=models:/m/1: its classification head is not trained \(missing classifier.bias, classifier.weight\); "
        "finetune it first",
        tmp_path,
    )


@pytest.mark.parametrize("config", TIED, ids=lambda config: config.model_type)
def test_a_decoder_whose_head_is_its_embedding_is_whole(config, tiny_model, tmp_path):
    saved_decoder(config, tiny_model, tmp_path)
    assert load(str(tmp_path), "text-generation").network.lm_head.out_features == 300


def test_a_decoder_without_its_head_is_for_finetune_only(tiny_model, tiny_texts, tmp_path):
    saved_decoder(UNTIED, tiny_model, tmp_path)
    assert load(str(tmp_path), "text-generation").network.lm_head.out_features == 300
    CausalLM.from_config(UNTIED).base_model.save_pretrained(tmp_path)
    refused(
        r"its language-model head is not trained \(missing lm_head.weight\); finetune it", tmp_path, "text-generation"
    )
    assert load(str(tmp_path), "text-generation", texts=tiny_texts.train).network.lm_head.out_features == 300


def test_weights_that_are_missing_in_the_body(tiny_model, tmp_path):
    tiny_model.save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((8).to_bytes(8, "little") + b"{}      ")
    refused(r"model=models:/m/1: weights are missing \(bert.*, bert.*, bert.* and \d+ more\)", tmp_path)


@pytest.mark.parametrize("labels", [(), ("a", "b", "c", "d")])
def test_weights_of_another_shape_than_the_config_says(tiny_model, tmp_path, labels):
    tiny_model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": 48}))
    refused(
        r"model=models:/m/1: its weights have other shapes than its config.json says \(bert", tmp_path, labels=labels
    )


@pytest.mark.parametrize("content", [b"junk", b"", b"\xff" * 1000])
def test_a_broken_weights_file(tiny_model, tmp_path, content):
    tiny_model.save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    refused(r"model=models:/m/1 cannot be loaded for task=text-classification: .*header", tmp_path)


@pytest.mark.parametrize("changed", [{"hidden_size": "wide"}, {"id2label": ["a"]}, {"hidden_act": "none"}])
def test_a_broken_config(tiny_model, tmp_path, changed):
    tiny_model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changed}))
    refused(r"model=models:/m/1 cannot be ", tmp_path)


@pytest.mark.parametrize("content", ["{}", "[]", "", "no JSON", '{"added_tokens": [], "model": {"type": "none"}}'])
def test_a_broken_tokenizer(tiny_model, tmp_path, content):
    tiny_model.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    refused(r"model=models:/m/1: its tokenizer cannot be read \(\w+: .*\); save it again", tmp_path)


@pytest.mark.parametrize("content", ["{}", ""])
def test_a_broken_tokenizer_of_an_exported_model(tiny_exported, tmp_path, content):
    shutil.copytree(tiny_exported.folder, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text(content)
    refused(r"model=models:/m/1: its tokenizer.json cannot be read \(.*\); export it again", tmp_path / "model")


@pytest.mark.parametrize("config", [None, "{}", '{"tokenizer_class": "BertTokenizer"}'])
def test_a_folder_without_a_tokenizer(tiny_model, tmp_path, config):
    tiny_model.network.save_pretrained(tmp_path)
    if config:
        (tmp_path / "tokenizer_config.json").write_text(config)
    refused(r"no tokenizer is saved in .*; missing: tokenizer.json or (tokenizer.model|vocab.txt)", tmp_path)


def test_a_tokenizer_config_alone_is_no_tokenizer(tiny_model, tmp_path):
    tiny_model.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    refused(r"its tokenizer cannot be read \(.*\); tokenizer.json is missing in ", tmp_path)


def test_the_tokenizer_may_lie_in_another_folder(tiny_model, tmp_path):
    tiny_model.network.save_pretrained(tmp_path / "model")
    tiny_model.tokenizer.save_pretrained(tmp_path / "tokenizer")
    loaded = load(str(tmp_path / "model"), tokenizer=str(tmp_path / "tokenizer"))
    assert loaded.tokenizer.get_vocab() == tiny_model.tokenizer.get_vocab()
    (tmp_path / "empty").mkdir()
    for name in ("empty", "gone"):
        refused(rf"tokenizer.json is missing in .*{name}", tmp_path / "model", tokenizer=str(tmp_path / name))


def saved_decoder(config: PretrainedConfig, tiny_model: TextModel, folder: Path) -> None:
    CausalLM.from_config(config).save_pretrained(folder)
    tiny_model.tokenizer.save_pretrained(folder)


def refused(match: str, folder: Path, *args, **kwargs) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        load(str(folder), *args, named="models:/m/1", **kwargs)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"model=models:/m/1: the folder holds no config.json"):
        load(str(tmp_path), named="models:/m/1")


def test_an_unknown_task_names_the_known(folder):
    with pytest.raises(ConfigError, match="task=poetry is not known; choose one of: text-classification, text-gen"):
        load(folder, "poetry")


def test_the_builtin_encoder_needs_texts_to_learn_its_words_from():
    with pytest.raises(ConfigError, match="model=builtin:encoder is not trained: finetune trains it"):
        load("builtin:encoder")


@pytest.mark.parametrize(
    ("file", "known"), [("config.json", True), ("config.json", False), ("tokenizer_config.json", True)]
)
def test_python_code_that_comes_with_a_model_runs_only_for_who_asks_for_it(folder, file, known, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')\nfrom transformers import BertConfig, PreTrainedTokenizerFast\n"
    code += "class Own(BertConfig):\n    model_type = 'own'\nclass OwnFast(PreTrainedTokenizerFast):\n    pass\n"
    (Path(folder) / "own.py").write_text(code)
    described = json.loads((Path(folder) / file).read_text())
    described["auto_map"] = (
        {"AutoConfig": "own.Own"} if file == "config.json" else {"AutoTokenizer": [None, "own.OwnFast"]}
    )
    if not known:
        described["model_type"] = "own"
    (Path(folder) / file).write_text(json.dumps(described))
    with pytest.raises(ModelError, match=f"auto_map in its {file}.*only with trust_remote_code=true") as error:
        load(folder)
    assert "\n" not in str(error.value)
    assert not ran.exists()
    if file == "config.json":
        with suppress(ModelError):  # its class is none that a network is known for
            load(folder, trust_remote_code=True)
        assert ran.exists()
