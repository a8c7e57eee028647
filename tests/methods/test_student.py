"""A student has the shape it was asked for, fits its teacher, and is refused where it does not."""

from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from tokenizers import normalizers
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

from mlflow_llmops.engines.artifact import ExportedArtifact
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods._session import Session, session
from mlflow_llmops.methods._teacher import teacher_answers
from mlflow_llmops.methods.distill._match import label_difference, token_difference
from mlflow_llmops.methods.distill._student import build_student, keep_layers, transformer_blocks
from mlflow_llmops.methods.distill.attention import Attention
from mlflow_llmops.methods.distill.hidden import Hidden
from mlflow_llmops.methods.distill.logits import Logits
from mlflow_llmops.models.load import load
from mlflow_llmops.models.scratch import small_encoder
from mlflow_llmops.models.scratch_decoder import small_decoder
from mlflow_llmops.models.text_model import TextModel, count_parameters

NOWHERE = Path("unused")
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
GATED = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4}
NETS = {
    "bert": lambda n: BertForSequenceClassification(
        BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=n, num_attention_heads=4, intermediate_size=64)
    ),
    "distilbert": lambda n: DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=50, dim=32, n_layers=n, n_heads=4, hidden_dim=64)
    ),
    "gpt2": lambda n: GPT2ForSequenceClassification(
        GPT2Config(vocab_size=50, n_embd=32, n_layer=n, n_head=4, **SPECIAL)
    ),
    "llama": lambda n: LlamaForSequenceClassification(
        LlamaConfig(vocab_size=50, num_hidden_layers=n, **GATED, **SPECIAL)
    ),
    "qwen2": lambda n: Qwen2ForSequenceClassification(
        Qwen2Config(vocab_size=50, num_hidden_layers=n, **GATED, **SPECIAL)
    ),
}


def teacher_of(family: str, layers: int = 5) -> TextModel:
    torch.manual_seed(0)
    return TextModel("text-classification", None, 32, ("a", "b"), NETS[family](layers).eval())


def answer(net) -> torch.Tensor:
    ids = torch.randint(3, 50, (3, 7), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return net(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def feed_forward_width(net) -> int:
    return max(max(p.shape) for name, p in transformer_blocks(net).named_parameters() if "attn" not in name)


@pytest.mark.parametrize(("count", "kept"), [(1, [0]), (2, [0, 4]), (3, [0, 2, 4]), (4, [0, 1, 3, 4])])
@pytest.mark.parametrize("family", NETS)
def test_layers_keeps_blocks_of_the_teacher_evenly_spread(family, count, kept):
    teacher = teacher_of(family).network
    student = keep_layers(teacher, count)
    blocks, originals = transformer_blocks(student), transformer_blocks(teacher)
    assert len(blocks) == student.config.num_hidden_layers == count
    assert len(originals) == teacher.config.num_hidden_layers == 5
    for block, position in zip(blocks, kept, strict=True):
        ours, theirs = block.state_dict(), originals[position].state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    rest = {name: p for name, p in student.named_parameters() if p.ndim and "layer" not in name and ".h." not in name}
    assert rest
    assert all(torch.equal(p, teacher.get_parameter(name)) for name, p in rest.items())


@pytest.mark.parametrize("family", NETS)
def test_a_cut_student_reloads_as_its_stock_class(family, tmp_path):
    student = keep_layers(teacher_of(family).network, 3)
    student.save_pretrained(tmp_path)
    torch.testing.assert_close(answer(type(student).from_pretrained(tmp_path).eval()), answer(student))


@pytest.mark.parametrize("family", NETS)
def test_a_fresh_student_has_the_shape_that_was_asked_for(family, tmp_path):
    teacher = teacher_of(family)
    student = build_student(teacher, "shape:layers=2,width=16,heads=2,neurons=24", 0)
    assert type(student.network) is type(teacher.network)
    assert student.fresh
    assert (student.network.config.num_hidden_layers, student.network.config.hidden_size) == (2, 16)
    assert student.network.config.num_attention_heads == 2
    assert feed_forward_width(student.network) == 24
    student.network.save_pretrained(tmp_path)
    reloaded = type(student.network).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(answer(reloaded), answer(student.network))
    more = build_student(teacher, "shape:layers=7", 0).network
    assert len(transformer_blocks(more)) == 7
    assert answer(more).shape == (3, 2)


@pytest.mark.parametrize("family", NETS)
def test_the_feed_forward_follows_the_width_unless_it_is_given(family):
    assert feed_forward_width(build_student(teacher_of(family), "shape:width=16,heads=2", 0).network) == 64
    assert feed_forward_width(build_student(teacher_of(family), "shape:width=24,heads=2", 0).network) == 96


def test_a_fresh_student_depends_on_the_seed_alone():
    teacher = teacher_of("bert")
    same = [answer(build_student(teacher, "shape:layers=1", seed).network) for seed in (3, 3, 4)]
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])


@pytest.mark.parametrize(
    "student",
    [
        "",
        "layers",
        "layers:",
        "layers:x",
        "layers:-1",
        "layers:²",
        "layers:0",
        "layers:2",
        "shape:",
        "shape:layers",
        "shape:layers=0",
        "shape:layers=²",
        "shape:depth=2",
        "shape:width=30,heads=4",
        "tiny",
        "no/such-model",
        "albert:",
        "albert:depth=2",
        "albert:width=0",
        "albert:width=30,heads=4",
        "distilbert:embedding=8",
        "mobilebert:bottleneck=30,heads=4",
        "albrt:width=32",
    ],
)
def test_a_student_that_cannot_be_built_says_how_to_write_it(tiny_model, tiny_texts, student, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="^student="):
        Logits(student=student).apply(tiny_model, tiny_texts, NOWHERE)


# efficient architectures


@pytest.mark.parametrize(
    ("name", "millions"),
    [("distilbert", 66), ("tinybert-4", 14.5), ("tinybert-6", 67), ("albert", 12), ("mobilebert", 25)],
)
def test_an_architecture_has_as_many_parameters_as_its_paper_says(tiny_model, name, millions):
    with torch.device("meta"):
        teacher = tiny_model.with_net(BertForSequenceClassification(BertConfig(num_hidden_layers=1)))
        parameters = sum(p.numel() for p in build_student(teacher, name, 0).network.parameters())
    assert parameters / 1e6 == pytest.approx(millions, rel=0.04)


SMALL = [
    "distilbert:width=32,layers=2",
    "tinybert-4:width=32,layers=2",
    "albert:width=128,layers=2",
    "mobilebert:width=64,layers=2",
]


@pytest.mark.parametrize("student", SMALL)
def test_a_small_one_of_an_architecture_takes_the_teachers_tokens_and_labels(tiny_model, tiny_texts, student, tmp_path):
    built = build_student(tiny_model, student, 0)
    config, theirs = built.network.config, tiny_model.network.config
    assert built.fresh
    assert config.model_type == student.split("-")[0].split(":")[0].replace("tinybert", "bert")
    assert (config.num_hidden_layers, config.hidden_size) == (2, int(student.split("width=")[1].split(",")[0]))
    assert (config.vocab_size, config.max_position_embeddings) == (theirs.vocab_size, theirs.max_position_embeddings)
    assert tuple(config.id2label.values()) == built.labels == tiny_model.labels
    long = " ".join(tiny_texts.test.texts)
    answers = scorer_of(built).logits([*tiny_texts.test.texts[:5], long])
    built.save(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(plain) is type(built.network)
    reloaded = load(str(tmp_path))
    assert reloaded.labels == tiny_model.labels
    np.testing.assert_array_equal(scorer_of(reloaded).logits([*tiny_texts.test.texts[:5], long]), answers)


def test_sizes_that_are_not_given_follow_the_width(tiny_model):
    config = build_student(tiny_model, "albert:width=128,layers=2", 0).network.config
    assert (config.num_attention_heads, config.intermediate_size, config.embedding_size) == (2, 512, 128)
    config = build_student(tiny_model, "albert:width=64,heads=4,neurons=96,embedding=16", 0).network.config
    assert (config.num_attention_heads, config.intermediate_size, config.embedding_size) == (4, 96, 16)
    config = build_student(tiny_model, "mobilebert:width=128,layers=1", 0).network.config
    assert (config.intra_bottleneck_size, config.true_hidden_size, config.intermediate_size) == (32, 32, 128)
    assert build_student(tiny_model, "distilbert:width=200,layers=1", 0).network.config.n_heads == 2


def test_layers_of_an_albert_share_their_weights(tiny_model):
    two, four = (build_student(tiny_model, f"albert:width=64,layers={n}", 0) for n in (2, 4))
    assert count_parameters(two.network)[0] == count_parameters(four.network)[0]
    assert not np.array_equal(*(scorer_of(each).logits(["rain and fog"]) for each in (two, four)))


@pytest.mark.parametrize("student", SMALL)
def test_a_fresh_architecture_depends_on_the_seed_alone(tiny_model, student):
    first, again, other = (
        scorer_of(build_student(tiny_model, student, seed)).logits(["old rain"]) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("student", "rate"), [("distilbert:width=32,layers=1", 3e-3), ("albert:width=64,layers=2", 1e-3)]
)
def test_a_fresh_architecture_learns(tiny_model, tiny_texts, student, rate):
    method = Logits(student=student, epochs=10, batch_size=16, learning_rate=rate, token_dropout=0)
    trained = method.apply(tiny_model, tiny_texts, NOWHERE, seed=1)
    truth = [trained.labels.index(label) for label in tiny_texts.test.labels]
    assert np.mean(scorer_of(trained).logits(tiny_texts.test.texts).argmax(1) == truth) > 0.7
    assert not trained.fresh


def test_an_encoder_is_refused_where_texts_are_written(tiny_decoder, tiny_texts):
    with pytest.raises(ConfigError, match=r"student='albert' is an encoder, which cannot write texts; give layers:N"):
        Logits(student="albert").apply(tiny_decoder, tiny_texts, NOWHERE)


# students from a folder


def saved(model: TextModel, folder: Path) -> str:
    model.save(folder)
    return str(folder)


def other_tokens(texts, labels, **shape) -> TextModel:
    """A small BERT whose vocabulary was learned from other texts."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return small_encoder(texts.pick(range(40)), labels, vocabulary=120, **{**sizes, **shape})


def test_a_student_from_a_folder_keeps_its_weights_and_gets_a_head_for_the_teachers_labels(
    tiny_model, tiny_folder, tmp_path
):
    student = build_student(tiny_model, str(tiny_folder), 0)
    for name, weight in tiny_model.network.state_dict().items():
        assert torch.equal(student.network.state_dict()[name], weight), name
    other = with_labels(tiny_model, ("a", "b"))
    folder = saved(other, tmp_path / "other")
    first, again = (build_student(tiny_model, folder, 5) for _ in range(2))
    assert first.labels == tiny_model.labels
    assert torch.equal(first.network.classifier.weight, again.network.classifier.weight)
    for name, weight in other.network.base_model.state_dict().items():
        assert torch.equal(first.network.base_model.state_dict()[name], weight), name


def with_labels(model: TextModel, labels: tuple[str, ...]) -> TextModel:
    config = BertConfig(vocab_size=len(model.tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    config.id2label = dict(enumerate(labels))
    return model.with_net(BertForSequenceClassification(config).eval())


def test_answers_stand_in_the_order_of_the_students_labels(tiny_model, tiny_texts, tmp_path):
    labels = tiny_model.labels[::-1]
    folder = saved(with_labels(tiny_model, labels), tmp_path / "reversed")
    method = Logits(student=folder, epochs=3, batch_size=16)
    student = method.student_of(tiny_model, tiny_texts, 0)
    assert student.labels == labels
    rows, dev = method.lessons(tiny_model, student, tiny_texts)
    answers = teacher_answers(tiny_model, tiny_texts.train)["teacher"]
    assert not dev
    for row, answer_, label in zip(rows, answers, tiny_texts.train.labels, strict=True):
        np.testing.assert_array_equal(row.beside["teacher"], answer_[::-1])
        assert labels[row.labels] == label


@pytest.mark.parametrize("reference", ["models:/mine/3", "runs:/0123/model"])
def test_a_reference_is_fetched_where_a_run_can(tiny_model, tiny_folder, tiny_texts, reference):
    with pytest.raises(ConfigError, match=f"{reference} .*give the folder of its files"):
        Logits(student=reference).apply(tiny_model, tiny_texts, NOWHERE)
    asked = []
    with session(Session(fetch=lambda name: asked.append(name) or tiny_folder)):
        student = build_student(tiny_model, reference, 0)
    assert asked == [reference]
    assert torch.equal(student.network.classifier.weight, tiny_model.network.classifier.weight)


def test_a_student_of_other_labels_is_refused(tiny_model, tiny_texts, tmp_path):
    folder = saved(with_labels(tiny_model, (*tiny_model.labels, "zoo")), tmp_path / "more")
    with pytest.raises(ConfigError, match=r"student=.*: the teacher does not know its label 'zoo'; finetune it"):
        Logits(student=folder).apply(tiny_model, tiny_texts, NOWHERE)
    assert label_difference(tiny_model, replace(tiny_model, labels=("sea",))) == (
        "it does not know the teacher's label 'kitchen'"
    )


def test_a_student_with_tokens_of_its_own_learns_whole_answers(tiny_model, tiny_texts, tmp_path):
    folder = saved(other_tokens(tiny_texts.train, tiny_model.labels), tmp_path / "own")
    method = Logits(student=folder, epochs=4, batch_size=16, learning_rate=3e-3)
    student = method.student_of(tiny_model, tiny_texts, 0)
    rows, _ = method.lessons(tiny_model, student, tiny_texts)
    expected = student.tokenizer(tiny_texts.train.texts[0])["input_ids"]
    assert rows[0].input_ids.tolist() == expected != tiny_model.tokenizer(tiny_texts.train.texts[0])["input_ids"]
    np.testing.assert_array_equal(
        rows[7].beside["teacher"], teacher_answers(tiny_model, tiny_texts.train)["teacher"][7]
    )
    trained = method.apply(tiny_model, tiny_texts, NOWHERE, 1)
    truth = [trained.labels.index(label) for label in tiny_texts.test.labels]
    assert np.mean(scorer_of(trained).logits(tiny_texts.test.texts).argmax(1) == truth) > 0.7


@pytest.mark.parametrize("method", [Hidden, Attention])
def test_tokens_of_its_own_are_refused_where_tokens_are_compared(tiny_model, tiny_texts, tmp_path, method):
    folder = saved(other_tokens(tiny_texts.train, tiny_model.labels), tmp_path / "own")
    reason = (
        r"its vocabulary \(120 tokens\) is not the teacher's \(\d+\), so tokens cannot be compared; use distill.logits"
    )
    with pytest.raises(ConfigError, match=f"student=.*: {reason}"):
        method(student=folder).apply(tiny_model, tiny_texts, NOWHERE)


def test_the_same_words_in_other_pieces_are_other_tokens(tiny_model, tiny_folder, tiny_texts):
    student = load(str(tiny_folder))
    assert token_difference(tiny_model, student, tiny_texts.train.texts) is None
    student.tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    assert "into other tokens than the teacher" in token_difference(tiny_model, student, ())


@pytest.mark.parametrize("method", [Logits, Hidden, Attention])
def test_a_causal_student_of_other_tokens_is_sent_to_whole_texts(tiny_decoder, tiny_texts, tmp_path, method):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    folder = saved(small_decoder(tiny_texts.dev, vocabulary=300, **shape), tmp_path / "own")
    with pytest.raises(ConfigError, match=r"so tokens cannot be compared; use distill\.sequence, which learns from"):
        method(student=folder).apply(tiny_decoder, tiny_texts, NOWHERE)


@pytest.mark.parametrize("shorter", ["teacher", "student"])
def test_texts_are_cut_alike_and_the_student_keeps_its_length(tiny_model, tiny_texts, shorter, monkeypatch):
    teacher = replace(tiny_model, max_length=6) if shorter == "teacher" else tiny_model
    student = replace(tiny_model, max_length=6) if shorter == "student" else replace(tiny_model)
    student = student.with_net(keep_layers(tiny_model.network, 1))
    monkeypatch.setattr("mlflow_llmops.methods.distill._distillation.build_student", lambda *_: student)
    rows, dev = Hidden(patience=1).lessons(teacher, student, tiny_texts)
    assert max(map(len, rows)) == max(map(len, dev)) == 6
    trained = Hidden(epochs=0.1, patience=1).apply(teacher, tiny_texts, NOWHERE)
    assert trained.max_length == student.max_length


def test_an_exported_student_cannot_be_trained(tiny_model, tiny_texts, tmp_path):
    tiny_model.save_encoder(tmp_path)
    ExportedArtifact("onnx", tiny_model.task, tiny_model.labels, 64, tiny_model.pad_id, 1, 1, "fp32").write(tmp_path)
    with pytest.raises(ConfigError, match=r"student=.* is a graph of kind onnx, which cannot be trained"):
        Logits(student=str(tmp_path)).apply(tiny_model, tiny_texts, NOWHERE)
