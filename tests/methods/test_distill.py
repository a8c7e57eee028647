"""A student has the shape it was asked for, starts from its teacher, and learns from it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
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

from mlflow_llmops.batching.scorer import softmax
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods.distill._student import build_student, keep_layers, transformer_blocks
from mlflow_llmops.methods._teacher import teacher_answers
from mlflow_llmops.methods.distill.logits import Logits
from mlflow_llmops.models.text_model import TextModel

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
    ],
)
def test_a_student_that_cannot_be_built_says_how_to_write_it(tiny_model, tiny_texts, student):
    with pytest.raises(ConfigError, match="^student="):
        Logits(student=student).apply(tiny_model, tiny_texts, NOWHERE)


def held_out_loss(model, texts) -> float:
    """Cross entropy with the labels of texts that no training saw."""
    numbers = torch.tensor([model.labels.index(label) for label in texts.labels])
    return torch.nn.functional.cross_entropy(torch.from_numpy(scorer_of(model).logits(texts.texts)), numbers).item()


@pytest.mark.parametrize("student", ["layers:1", "shape:layers=1,width=32,heads=2"])
def test_a_distilled_student_beats_the_same_student_without_training(tiny_model, tiny_texts, student):
    untrained, trained = (
        Logits(student=student, epochs=epochs, batch_size=16).apply(tiny_model, tiny_texts, NOWHERE, seed=1)
        for epochs in (0, 3)
    )
    assert held_out_loss(trained, tiny_texts.test) < held_out_loss(untrained, tiny_texts.test)


def test_a_student_of_the_teacher_answers_more_like_it_than_one_of_the_labels(tiny_model, tiny_texts):
    target = softmax(np.stack(teacher_answers(tiny_model, tiny_texts.test)["teacher"]))

    def distance(alpha: float, beta: float) -> float:
        method = Logits(student="layers:1", alpha=alpha, beta=beta, epochs=3, batch_size=16)
        answers = softmax(scorer_of(method.apply(tiny_model, tiny_texts, NOWHERE, 1)).logits(tiny_texts.test.texts))
        return float((target * (np.log(target) - np.log(answers))).sum(1).mean())

    assert distance(alpha=0.0, beta=1.0) < distance(alpha=1.0, beta=0.0)


def test_the_teachers_answers_stand_in_the_order_of_the_texts(tiny_model, tiny_texts):
    texts = tiny_texts.dev.pick([*range(20), 0])
    alone = np.concatenate([scorer_of(tiny_model).logits([text]) for text in texts.texts])
    np.testing.assert_allclose(np.stack(teacher_answers(tiny_model, texts)["teacher"]), alone, atol=1e-4)
