"""`builtin:encoder`: a small BERT with random weights and a vocabulary of its own, so that no download is needed."""

from collections import Counter
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from mlflow_llmops.data.texts import Texts
from mlflow_llmops.models.text_model import TextModel

SCRATCH = "builtin:encoder"
VOCABULARY = 8000
LETTERS = 300
"""The most frequent ones; a word with another letter is unknown."""
MAX_LENGTH = 64
SHAPE: dict[str, Any] = {"hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 512}
TRAINING: dict[str, Any] = {
    # hidden tokens regularise it already, and without dropout attention takes its fast path
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.05,  # BERT's 0.02 is for networks four times as wide
}


def small_encoder(texts: Texts, labels: tuple[str, ...], vocabulary: int = VOCABULARY, **shape: int) -> TextModel:
    """A WordPiece vocabulary learned from `texts` and a BERT classifier over `labels`; `shape` overrides `SHAPE`.

    Its weights are random: seed torch before, and train it after.
    """
    tokenizer = _word_pieces(texts, vocabulary)
    config = BertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_LENGTH,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        **{**TRAINING, **SHAPE, **shape},
    )
    net = BertForSequenceClassification(config).eval()
    return TextModel("text-classification", tokenizer, MAX_LENGTH, labels, net, fresh=True)


def _word_pieces(texts: Texts, vocabulary: int) -> PreTrainedTokenizerFast:
    special = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    normalizer = normalizers.BertNormalizer()
    counts = Counter(
        letter for text in texts.texts for letter in normalizer.normalize_str(text) if not letter.isspace()
    )
    letters = sorted(letter for letter, _ in counts.most_common(LETTERS))
    # ties between pieces fall by their numbers, which are those of a hash map unless every letter has its own before
    first = [*special.values(), *letters, *(f"##{letter}" for letter in letters)]
    learner = Tokenizer(models.WordPiece(unk_token=special["unk_token"]))
    learner.normalizer, learner.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=first, show_progress=False)
    learner.train_from_iterator(texts.texts, trainer)
    tokenizer = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token=special["unk_token"]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = learner.normalizer, learner.pre_tokenizer
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
        **special,
    )
