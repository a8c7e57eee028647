"""A smaller vocabulary cuts the texts that it is kept for as before, and can still spell all others."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.errors import DataError, ModelError
from mlflow_llmops.measure.pieces import finer_texts
from mlflow_llmops.methods.prune._pieces import trim
from mlflow_llmops.methods.prune.vocabulary import Vocabulary
from mlflow_llmops.models.load import load
from mlflow_llmops.models.text_model import TextModel

NOWHERE = Path("unused")
KNOWN = [
    "the old captain took the boat to the harbour today, and the harbour was full of boats",
    "rain and storm: we saw thunder over the island!  Then the wind fell.",
    "salt, sugar and flour make a dough; 12 spoons of butter, 3.5 of oil",
    "naïve café déjà vu, Zürich and Malmö",
] * 3
WORDS = [
    "unboating",
    "captaincy",
    "harbourless",
    "thundering",
    "doughnut",
    "Ünïcode",
    "日本語",
    "x",
    "#!?",
    "",
    "  ",
    "zzzz",
]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        KNOWN, trainers.WordPieceTrainer(vocab_size=260, special_tokens=special, show_progress=False)
    )
    numbers = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=numbers)
    return tokenizer


def byte_pairs(ignore_merges: bool = False) -> Tokenizer:
    """As GPT-2 and RoBERTa have them, and with `ignore_merges` Llama 3."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        KNOWN,
        trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def sentence_pieces() -> Tokenizer:
    """BPE as Llama and Llama 2 have it: no words, bytes for unknown letters."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    learner = trainers.BpeTrainer(vocab_size=560, special_tokens=[*SPECIAL, *fallback], show_progress=False)
    tokenizer.train_from_iterator(KNOWN, learner)
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] in SPECIAL]
    return Tokenizer.from_str(json.dumps(spec))


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    learner = trainers.UnigramTrainer(
        vocab_size=170, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False, max_piece_length=8
    )
    tokenizer.train_from_iterator(KNOWN, learner)
    numbers = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=numbers)
    return tokenizer


TOKENIZERS = {
    "WordPiece": word_piece,
    "byte-level BPE": byte_pairs,
    "BPE without merges": lambda: byte_pairs(ignore_merges=True),
    "SentencePiece BPE": sentence_pieces,
    "Unigram": unigram,
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request) -> Tokenizer:
    return TOKENIZERS[request.param]()


def tokens(tokenizer: Tokenizer, texts) -> list[list[str]]:
    return [encoding.tokens for encoding in tokenizer.encode_batch(list(texts))]


@pytest.mark.parametrize("used", [KNOWN[:1], KNOWN[1:3], KNOWN[3:4], ["the boat"], [""]])
def test_texts_that_it_is_kept_for_have_the_same_pieces_and_fewer_pieces_are_there(tokenizer, used):
    trimmed = trim(tokenizer, used)
    assert tokens(trimmed.tokenizer, used) == tokens(tokenizer, used)
    assert trimmed.tokenizer.get_vocab_size() == len(trimmed.kept) < tokenizer.get_vocab_size()
    old = tokenizer.get_vocab()
    assert {
        piece: trimmed.kept[number] for piece, number in trimmed.tokenizer.get_vocab().items()
    }.items() <= old.items()
    ids = [trimmed.kept[number] for number in trimmed.tokenizer.encode(used[0]).ids]
    assert ids == tokenizer.encode(used[0]).ids


def test_all_other_texts_are_spelled_as_well_as_before(tokenizer):
    """Nothing that was known becomes unknown, and decoding gives the same."""
    trimmed = trim(tokenizer, ["the boat"]).tokenizer
    for text in [*WORDS, *KNOWN]:
        before, after = tokens(tokenizer, [text])[0], tokens(trimmed, [text])[0]
        unknown = [sum(piece in ("[UNK]", "<unk>") for piece in pieces) for pieces in (before, after)]
        assert unknown[0] == unknown[1], text
        assert len(after) >= len(before), text
        assert trimmed.decode(trimmed.encode(text).ids) == tokenizer.decode(tokenizer.encode(text).ids), text


def test_numbers_that_are_asked_for_stay(tokenizer):
    last = tokenizer.get_vocab_size() - 1
    assert last in trim(tokenizer, ["the"], [last, 10**6]).kept


def test_a_word_that_was_unknown_stays_unknown():
    """`ab` begins it and nothing goes on from there; without `ab` it would be spelled as `a`, `##bc`."""
    vocabulary = {piece: number for number, piece in enumerate(["[UNK]", "a", "##b", "ab", "##bc", "d"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert tokens(tokenizer, ["abc"]) == [["[UNK]"]]
    assert tokens(trim(tokenizer, ["abc"]).tokenizer, ["abc"]) == [["[UNK]"]]


def test_pieces_that_no_text_can_have_go():
    """BERT splits words at Chinese letters and marks, so none of them goes on a word; a reserved place is no letter."""
    pieces = ["[UNK]", "a", "##a", "日", "##日", "!", "##!", "[unused1]", "##É", "##é"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    assert [pieces[number] for number in trim(tokenizer, ["a"]).kept] == ["[UNK]", "a", "##a", "日", "!"]


def test_other_kinds_are_refused_with_those_that_are_known():
    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(
        ModelError, match="a WordLevel tokenizer cannot be cut yet; those that can: WordPiece, BPE, Uni"
    ):
        trim(words, ["a"])


SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
ENDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
NETS = {
    "bert": (word_piece, lambda n: BertForSequenceClassification(BertConfig(vocab_size=n, **SHAPE))),
    "distilbert": (
        word_piece,
        lambda n: DistilBertForSequenceClassification(
            DistilBertConfig(vocab_size=n, dim=32, n_layers=2, n_heads=4, hidden_dim=48)
        ),
    ),
    "roberta": (byte_pairs, lambda n: RobertaForSequenceClassification(RobertaConfig(vocab_size=n, **SHAPE, **ENDS))),
    "xlm-roberta": (
        unigram,
        lambda n: XLMRobertaForSequenceClassification(XLMRobertaConfig(vocab_size=n, **SHAPE, **ENDS)),
    ),
    "gpt2": (byte_pairs, lambda n: GPT2LMHeadModel(GPT2Config(vocab_size=n, n_embd=32, n_layer=2, n_head=4, **ENDS))),
    "llama": (
        sentence_pieces,
        lambda n: LlamaForCausalLM(LlamaConfig(vocab_size=n, **SHAPE, **ENDS, tie_word_embeddings=False)),
    ),
    "llama, tied, padded": (
        sentence_pieces,
        lambda n: LlamaForCausalLM(LlamaConfig(vocab_size=n + 20, **SHAPE, **ENDS, tie_word_embeddings=True)),
    ),
}


@pytest.fixture(params=NETS)
def family(request) -> TextModel:
    make, net_of = NETS[request.param]
    special = (
        {"pad_token": "[PAD]", "unk_token": "[UNK]"}
        if make is word_piece
        else {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=make(), model_max_length=64, **special)
    torch.manual_seed(0)
    net = net_of(len(tokenizer)).eval()
    task = "text-generation" if net.can_generate() else "text-classification"
    return TextModel(task, tokenizer, 64, ("LABEL_0", "LABEL_1")[: 2 if task != "text-generation" else 0], net)


def data_of(train) -> Splits:
    return Splits(Texts(tuple(train)), Texts(tuple(KNOWN[2:3])), Texts((*KNOWN[:1], "unboating captaincy")), "made")


def test_a_family_answers_alike_and_is_read_by_plain_from_pretrained(family, tmp_path):
    data = data_of(KNOWN[:2])
    method = Vocabulary()
    method.check(family, data)
    made = method.apply(family, data, NOWHERE)
    made.save(tmp_path)
    read = load(str(tmp_path), family.task)
    assert type(read.network) is type(family.network)
    assert read.network.config.vocab_size == len(read.tokenizer) < len(family.tokenizer)
    for text in KNOWN[:2]:
        answers = []
        for model in (family, made, read):
            ids = np.array([model.encoder.encode(text).ids])
            found = model.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})
            if found.ndim == 3:  # of each piece that is left, by its old place
                kept = [model.tokenizer.convert_tokens_to_ids(piece) for piece in sorted(read.tokenizer.get_vocab())]
                found = found[..., kept]
            answers.append(found)
        np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)
        np.testing.assert_allclose(answers[2], answers[0], atol=1e-5)
    for name in ("pad_token", "unk_token", "bos_token", "eos_token"):
        assert getattr(read.tokenizer, name) == getattr(family.tokenizer, name)
    for name in ("bos_token_id", "eos_token_id"):
        old = getattr(family.network.config, name)
        if old is not None:
            assert family.tokenizer.convert_ids_to_tokens(old) == read.tokenizer.convert_ids_to_tokens(
                getattr(read.network.config, name)
            )
    assert read.network.get_input_embeddings().padding_idx in (None, read.pad_id)
    if family.task == "text-generation":
        assert made.end_ids == tuple(read.tokenizer.convert_tokens_to_ids(["</s>"]))
        tied = family.network.config.tie_word_embeddings
        assert (made.network.lm_head.weight is made.network.get_input_embeddings().weight) == tied


def test_the_share_of_texts_that_are_cut_otherwise_is_measured(family):
    made = Vocabulary().apply(family, data_of(["the boat"]), NOWHERE)
    changed = [tokens(family.encoder, [text]) != tokens(made.encoder, [text]) for text in KNOWN]
    found = finer_texts(family, made, KNOWN)[names.FINER_TEXTS]
    assert found.value == np.mean(changed) > 0
    assert finer_texts(family, family, KNOWN)[names.FINER_TEXTS].value == 0


def test_without_texts_there_is_nothing_to_keep(tiny_model, tiny_texts):
    with pytest.raises(DataError, match="keeps what the train split uses, and it is empty"):
        Vocabulary().check(tiny_model, replace(tiny_texts, train=Texts(())))


@pytest.mark.parametrize(
    ("stock", "make"),
    [
        ("DistilBertTokenizer", word_piece),
        ("GPT2Tokenizer", byte_pairs),
        ("RobertaTokenizer", byte_pairs),
        ("LlamaTokenizer", sentence_pieces),
        ("XLMRobertaTokenizer", unigram),
    ],
)
def test_a_stock_tokenizer_stays_of_its_class(stock, make, tiny_model, tmp_path):
    """transformers builds these anew from the words in their file."""
    make().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": stock}))
    given = AutoTokenizer.from_pretrained(tmp_path)
    torch.manual_seed(0)
    net = BertForSequenceClassification(BertConfig(vocab_size=len(given), num_labels=3, **SHAPE))
    made = Vocabulary().apply(replace(tiny_model, tokenizer=given, net=net), data_of(KNOWN[:1]), NOWHERE)
    assert type(made.tokenizer) is type(given)
    assert len(made.tokenizer) < len(given)
    assert made.tokenizer.tokenize(KNOWN[0]) == given.tokenize(KNOWN[0])
