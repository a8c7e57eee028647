"""What a teacher writes, or an endpoint answers, is what the student learns, and nothing else of the text."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.endpoint.answers import Answer
from mlflow_llmops.endpoint.prompt import filled
from mlflow_llmops.errors import ConfigError, DataError
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.methods._losses import label_loss
from mlflow_llmops.methods._rows import IGNORED, Row, collate
from mlflow_llmops.methods._session import Session, session
from mlflow_llmops.methods._train import Schedule, train
from mlflow_llmops.methods.distill._completions import as_text, completions, prompts_of
from mlflow_llmops.methods.distill._lessons import label_lessons, prompt_texts, text_lessons, token_lessons
from mlflow_llmops.methods.distill.sequence import Sequence
from mlflow_llmops.models.text_model import TextModel

NOWHERE = Path("unused")
END = "</s>"


def causal_model(texts, vocabulary: int = 300, layers: int = 2, max_length: int = 32, seed: int = 0) -> TextModel:
    """A Llama 32 wide with random weights and byte-level pairs learned from `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<pad>", END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token=END)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_length,
        pad_token_id=fast.pad_token_id,
        eos_token_id=fast.eos_token_id,
        bos_token_id=None,
        initializer_range=0.2,
    )
    torch.manual_seed(seed)
    return TextModel("text-generation", fast, max_length, (), LlamaForCausalLM(config).eval())


@pytest.fixture(scope="module")
def writer(tiny_texts) -> TextModel:
    """A causal model that has learned a little of `tiny_texts`, and to end some of what it writes."""
    model = causal_model(tiny_texts.train.texts)
    end = model.tokenizer.eos_token_id
    encoded = [np.array([*model.encoder.encode(text).ids[:9], end]) for text in tiny_texts.train.texts[:200]]
    train(model, [Row(ids, ids) for ids in encoded], Schedule(3, 3e-3, 16, 0.0, 0))
    return model


@pytest.fixture(scope="module")
def corpus(tiny_texts) -> Splits:
    """Some of the texts, without their labels."""
    train_texts, few = tiny_texts.train.pick(range(64)), tiny_texts.dev.pick(range(16))
    return Splits(*(replace(split, labels=()) for split in (train_texts, few, few)))


def kept_rows(kept: dict[str, list[dict]]) -> list[dict]:
    [rows] = kept.values()
    return rows


def listening(kept: dict[str, list[dict]], heard: list | None = None, recall=lambda key: None) -> Session:
    """A session that takes what is kept apart, as the run's artifact store does."""

    def keep(key: str, folder: Path) -> None:
        files = sorted(folder.iterdir())
        if [file.name for file in files] == ["answers.jsonl"]:
            kept[key] = [json.loads(line) for line in files[0].read_text().splitlines()]

    record = (lambda metrics, step: heard.append(dict(metrics))) if heard is not None else (lambda metrics, step: None)
    return Session(record=record, keep=keep, recall=recall)


# what is written


def test_a_batch_is_completed_as_each_prompt_would_be_alone(writer, tiny_texts):
    texts = [*tiny_texts.test.texts[:40], "the", "old boat", "x", tiny_texts.test.texts[0]]
    prompts = prompts_of(writer, texts, 6)
    assert len({len(prompt) for prompt in prompts}) > 2
    together = completions(writer, prompts, 12, 0.0, 0)
    for prompt, written in zip(prompts, together, strict=True):
        alone = prompt.tolist()
        for _ in range(12):  # greedy, written out
            with torch.no_grad():
                alone.append(int(writer.network(input_ids=torch.tensor([alone])).logits[0, -1].argmax()))
            if alone[-1] == writer.tokenizer.eos_token_id:
                break
        assert written.tolist() == alone[len(prompt) :]
    ended = [written[-1] == writer.tokenizer.eos_token_id for written in together]
    assert 0 < sum(ended) < len(ended), "both kinds of ends are to be seen"


def test_sampling_depends_on_the_seed_alone(writer, tiny_texts):
    prompts = prompts_of(writer, tiny_texts.test.texts[:20], 4)
    torch.manual_seed(5)
    first = completions(writer, prompts, 8, 1.0, seed=1)
    state = torch.get_rng_state()
    again = completions(writer, prompts, 8, 1.0, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    other = completions(writer, prompts, 8, 1.0, seed=2)
    assert [w.tolist() for w in first] == [w.tolist() for w in again]
    assert [w.tolist() for w in first] != [w.tolist() for w in other]


def test_the_model_is_never_run_past_its_length(writer):
    prompts = [np.arange(5, 5 + length) for length in (0, 1, 30, 31, 32)]
    written = completions(replace(writer, tokenizer=writer.tokenizer), prompts, 64, 0.0, 0)
    assert len(written[0]) == len(written[4]) == 0
    assert 1 <= len(written[3]) <= 1 and 1 <= len(written[2]) <= 2 and 1 <= len(written[1]) <= 31


def test_prompts_are_the_first_tokens_without_an_end(writer):
    ids = writer.encoder.encode("the old boat").ids
    assert prompts_of(writer, ["the old boat"], 2)[0].tolist() == ids[:2]
    assert prompts_of(writer, ["the old boat", f"the{END}", ""], 99)[0].tolist() == ids
    assert prompts_of(writer, ["the old boat", f"the{END}", ""], 99)[2].tolist() == []
    assert END not in writer.tokenizer.decode(prompts_of(writer, [f"the{END}"], 99)[0])


# what is learned


def test_no_loss_counts_the_prompt(writer):
    prompts, written = [np.array([5, 6, 7]), np.array([8])], [np.array([9, 1]), np.array([10, 11, 12])]
    lessons = token_lessons(writer, ["a", "b"], prompts, written)
    rows = [lesson.row for lesson in lessons]
    assert [row.labels.tolist() for row in rows] == [[IGNORED] * 3 + [9, 1], [IGNORED, 10, 11, 12]]
    batch = collate(rows, writer)
    with torch.no_grad():
        outputs = writer.network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    of_tokens = outputs.logits.log_softmax(-1)
    wanted = [of_tokens[0, 2, 9], of_tokens[0, 3, 1], *(of_tokens[1, i, 10 + i] for i in range(3))]
    torch.testing.assert_close(label_loss(outputs, batch)["label"][1], -torch.stack(wanted).mean())


def test_a_student_with_other_tokens_gets_the_same_texts(writer, tiny_texts):
    other = causal_model(tiny_texts.train.texts, vocabulary=270)
    texts = list(tiny_texts.test.texts[:10])
    prompts = prompts_of(writer, texts, 4)
    written = completions(writer, prompts, 6, 0.0, 0)
    pairs = [as_text(writer, prompt, new) for prompt, new in zip(prompts, written, strict=True)]
    lessons = text_lessons(other, texts, [pair[0] for pair in pairs], [pair[1] for pair in pairs], joint="")
    for prompt, new, lesson in zip(prompts, written, lessons, strict=True):
        whole = writer.tokenizer.decode([*prompt, *new], skip_special_tokens=True)
        if new.tolist() == [writer.tokenizer.eos_token_id]:
            assert lesson.error == "the answer is empty"
            continue
        assert other.tokenizer.decode(lesson.row.input_ids, skip_special_tokens=True) == whole
        ended = new[-1] == writer.tokenizer.eos_token_id
        assert (lesson.row.input_ids[-1] == other.tokenizer.eos_token_id) == ended
        learned = other.tokenizer.decode(lesson.row.labels[lesson.row.labels != IGNORED], skip_special_tokens=True)
        assert whole.endswith(learned) and len(learned) >= len(whole) - len(writer.tokenizer.decode(prompt)) - 1


def test_an_endpoints_continuation_is_joined_and_ends_where_it_ended(writer):
    prompts = prompt_texts(writer, ["the old boat took", "we saw"], 3)
    assert "the old boat took".startswith(prompts[0])
    assert len(writer.encoder.encode(prompts[0]).ids) == 3
    answers = [Answer("", "the sail", "stop"), Answer("", " the sail", "length"), Answer("", " \n", "stop")]
    lessons = text_lessons(writer, ["1", "2", "3"], ["the old", "we saw", "x"], answers, joint=" ")
    said = [writer.tokenizer.decode(lesson.row.input_ids) for lesson in lessons[:2]]
    assert said == ["the old the sail" + END, "we saw the sail"]
    learned = [lesson.row.labels[lesson.row.labels != IGNORED] for lesson in lessons[:2]]
    assert [writer.tokenizer.decode(ids) for ids in learned] == [" the sail" + END, " the sail"]
    assert (lessons[2].row, lessons[2].error) == (None, "the answer is empty")


def test_an_end_that_the_tokenizer_puts_is_no_end_that_the_teacher_came_to(tiny_texts):
    model = causal_model(tiny_texts.train.texts)
    end = model.tokenizer.eos_token_id
    model.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A {END}", special_tokens=[(END, end)]
    )
    answers = [Answer("", "the sail", "length"), Answer("", "the sail", "stop")]
    cut, whole = (lesson.row for lesson in text_lessons(model, ["", ""], ["the old"] * 2, answers, joint=" "))
    assert model.tokenizer.decode(cut.labels[cut.labels != IGNORED]) == " the sail"
    assert model.tokenizer.decode(whole.labels[whole.labels != IGNORED]) == " the sail" + END
    assert cut.input_ids[0] == end and cut.labels[0] == IGNORED


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("sea", 1),
        (" Sea.\n", 1),
        ('"SEA"', 1),
        ("**sea**", 1),
        ("the sea", None),
        ("", None),
        ("sea, weather", None),
    ],
)
def test_an_answer_names_a_label_whatever_stands_around_it(tiny_model, answer, label):
    assert tiny_model.labels == ("kitchen", "sea", "weather")
    [lesson] = label_lessons(tiny_model, ["a text"], [Answer("", answer)])
    assert (lesson.row.labels if lesson.row else None) == label
    assert lesson.answer == answer
    assert bool(lesson.error) == (label is None)


def test_labels_that_differ_in_case_only_are_told_apart(tiny_model):
    model = replace(tiny_model, labels=("a", "A", "."))
    lessons = label_lessons(model, ["t"] * 4, [Answer("", said) for said in ("a", "A", '"A"', ".")])
    assert [lesson.row.labels if lesson.row else None for lesson in lessons] == [0, 1, None, 2]


def test_braces_in_a_text_stay_as_they_are():
    assert (
        filled("{labels}: {text} {other}", {"text": "{labels} {0}", "labels": "{text}"})
        == "{text}: {labels} {0} {other}"
    )


# the method


def likelihood(model: TextModel, prompts, written) -> float:
    """Mean log probability of what was written, each token after what stands before it."""
    found = []
    for prompt, new in zip(prompts, written, strict=True):
        ids = torch.from_numpy(np.concatenate([prompt, new]))
        with torch.no_grad():
            scores = model.network(input_ids=ids[None]).logits[0].log_softmax(-1)
        found.append(scores[len(prompt) - 1 : -1].gather(1, ids[len(prompt) :, None]).mean().item())
    return float(np.mean(found))


def test_a_causal_student_learns_to_write_as_its_teacher(writer, corpus):
    method = Sequence(student="layers:1", prompt_tokens=4, max_new_tokens=8, epochs=6, batch_size=8)
    kept: dict[str, list[dict]] = {}
    with session(listening(kept)):
        student = method.apply(writer, corpus, NOWHERE, seed=1)
    untrained = replace(method, epochs=0).apply(writer, corpus, NOWHERE, seed=1)
    prompts = prompts_of(writer, corpus.test.texts, 4)
    written = completions(writer, prompts, 8, 0.0, 0)
    assert likelihood(student, prompts, written) > likelihood(untrained, prompts, written) + 0.1
    rows = kept_rows(kept)
    assert [row["text"] for row in rows] == list(corpus.train.texts)
    assert all(row["kept"] and row["split"] == "train" for row in rows)


def test_what_a_teacher_wrote_is_not_written_again(writer, corpus, tmp_path, monkeypatch):
    method = Sequence(student="layers:1", prompt_tokens=4, max_new_tokens=4, epochs=1, patience=1, temperature=1.0)
    kept: dict[str, list[dict]] = {}
    with session(listening(kept)):
        first = method.apply(writer, corpus, NOWHERE, seed=1)
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept_rows(kept)))
    monkeypatch.setattr("mlflow_llmops.methods.distill.sequence.completions", lambda *given: pytest.fail("asked again"))
    with session(listening({}, recall=lambda key: tmp_path if key in kept else None)):
        again = method.apply(writer, corpus, NOWHERE, seed=1)
    ours, theirs = again.network.state_dict(), first.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [row["split"] for row in kept_rows(kept)] == ["train"] * 64 + ["dev"] * 16


@pytest.mark.parametrize(("temperature", "answers"), [(0.0, 1), (None, 2), (1.0, 2)])
def test_the_likeliest_words_are_the_same_under_every_seed(writer, corpus, temperature, answers):
    method = Sequence(student="layers:1", prompt_tokens=4, max_new_tokens=2, epochs=0, temperature=temperature)
    kept: dict[str, list[dict]] = {}
    with session(listening(kept)):
        for seed in (1, 2):
            method.apply(writer, corpus, NOWHERE, seed=seed)
    assert len(kept) == answers


def test_a_classifier_learns_its_teachers_labels_not_the_datas(tiny_model, tiny_texts):
    wrong = replace(tiny_texts.train, labels=tuple("sea" for _ in tiny_texts.train.labels))
    method = Sequence(student="layers:1", epochs=3, batch_size=16)
    student = method.apply(tiny_model, replace(tiny_texts, train=wrong), NOWHERE, seed=1)
    assert accuracy(student, tiny_texts.test) > 0.7


def accuracy(model: TextModel, texts) -> float:
    truth = [model.labels.index(label) for label in texts.labels]
    return float(np.mean(scorer_of(model).logits(texts.texts).argmax(1) == truth))


@pytest.fixture
def knowing(openai_server, tiny_texts):
    """An endpoint that knows the topic of every text, and likes to say it differently."""
    truth = dict(
        zip(tiny_texts.train.texts + tiny_texts.dev.texts, tiny_texts.train.labels + tiny_texts.dev.labels, strict=True)
    )

    def answer(prompt: str) -> str:
        label = truth[re.search(r"Text:\n(.*)\n", prompt)[1]]
        return [label, f" {label.upper()}.", f'"{label}"', f"It is about the {label}, I think"][len(prompt) % 4]

    openai_server.answer = answer
    return openai_server


def few(texts: Splits, count: int) -> Splits:
    return replace(texts, train=replace(texts.train.pick(range(count)), labels=()))


def test_a_student_learns_what_an_endpoint_says_of_texts_without_labels(knowing, tiny_model, tiny_texts):
    heard: list[dict] = []
    kept: dict[str, list[dict]] = {}
    fresh = {"student": "shape:layers=1,width=32,heads=2", "epochs": 12, "batch_size": 8, "learning_rate": 5e-3}
    method = Sequence(teacher="openai:m", base_url=knowing.url, **fresh)
    data = few(tiny_texts, 300)
    method.check(tiny_model, data)
    with session(listening(kept, heard)):
        student = method.apply(tiny_model, data, NOWHERE, seed=1)
    assert accuracy(student, tiny_texts.test) > 0.6
    rows = kept_rows(kept)
    wrong = [row for row in rows if not row["kept"]]
    assert len(rows) == len(knowing.seen) == 300
    assert 0 < len(wrong) < 150
    assert all("I think" in row["answer"] and "none of the labels" in row["error"] for row in wrong)
    told = {name: value for metrics in heard for name, value in metrics.items()}
    assert (told["sequence/requests"], told["sequence/errors"]) == (300, len(wrong))
    assert "kitchen\nsea\nweather" in knowing.prompts[0]
    assert knowing.key not in json.dumps([rows, heard])


def test_dev_is_asked_about_where_it_is_watched(knowing, tiny_model, tiny_texts):
    data = replace(few(tiny_texts, 20), dev=tiny_texts.dev.pick(range(10)))
    options = {"student": "layers:1", "epochs": 1, "teacher": "openai:m", "base_url": knowing.url}
    Sequence(**options).apply(tiny_model, data, NOWHERE)
    assert len(knowing.seen) == 20
    Sequence(**options, patience=1).apply(tiny_model, data, NOWHERE)
    assert len(knowing.seen) == 30
    with pytest.raises(ConfigError, match="^max_requests=3: .*Of 20 prompts, 3 were answered"):
        Sequence(**options, max_requests=3, prompt="Text:\n{text}\n?").apply(tiny_model, few(tiny_texts, 20), NOWHERE)


def test_an_endpoint_that_names_no_label_is_an_error_of_the_data(openai_server, tiny_model, tiny_texts):
    heard: list[dict] = []
    kept: dict[str, list[dict]] = {}
    method = Sequence(teacher="openai:m", base_url=openai_server.url, student="layers:1")
    openai_server.answer = lambda prompt: "no idea"
    told = r"^teacher=openai:m: none of 8 answers can be learned from \(.*'no idea'\); change prompt"
    with session(listening(kept, heard)), pytest.raises(DataError, match=told):
        method.apply(tiny_model, few(tiny_texts, 8), NOWHERE)
    assert heard[-1] == {"sequence/errors": 8.0}
    assert [row["answer"] for row in kept_rows(kept)] == ["no idea"] * 8


def test_a_causal_student_learns_what_an_endpoint_writes(openai_server, writer, corpus):
    openai_server.answer = lambda prompt: "rope rope rope"
    options = {"student": "layers:1", "prompt_tokens": 4, "epochs": 15, "batch_size": 8, "learning_rate": 3e-3}
    method = Sequence(teacher="openai:m", base_url=openai_server.url, **options)
    student = method.apply(writer, corpus, NOWHERE, seed=1)
    written = completions(student, prompts_of(writer, corpus.test.texts, 4), 20, 0.0, 0)
    said = [student.tokenizer.decode(ids) for ids in written]
    assert np.mean([answer == " rope rope rope" + END for answer in said]) > 0.8
    assert all(prompt.startswith("Continue the text.") for prompt in openai_server.prompts)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"teacher": "gpt-5"}, "^teacher='gpt-5': write openai:MODEL"),
        ({"teacher": "openai:"}, "^teacher='openai:': name the endpoint's model"),
        ({"base_url": "localhost:8000"}, "^base_url='localhost:8000': write http"),
        ({"prompt": "what is it?"}, "^prompt='what is it[?]': it holds no {text}"),
        ({"key_variable": "sk-12-34"}, "^key_variable: give the name of an environment variable"),
    ],
)
def test_a_bad_option_says_what_to_write(options, told):
    with pytest.raises(ConfigError, match=told) as raised:
        Sequence(**options)
    assert "sk-12-34" not in str(raised.value)


def test_a_prompt_that_fills_the_model_is_refused(writer, corpus):
    with pytest.raises(ConfigError, match="^prompt_tokens=32: the model takes 32 tokens"):
        Sequence(prompt_tokens=32).check(writer, corpus)
    Sequence(prompt_tokens=31).check(writer, corpus)
