"""`builtin:decoder`: a small Llama with random weights and a vocabulary of its own, so that no download is needed."""

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mlflow_llmops.data.texts import Texts
from mlflow_llmops.models.text_model import TextModel

SCRATCH_DECODER = "builtin:decoder"
VOCABULARY = 4000
MAX_LENGTH = 64
BEGIN, END, PADDING, UNKNOWN = "<s>", "</s>", "<pad>", "<unk>"
"""Bytes know every text: the unknown token is there for training to hide others behind."""
SHAPE: dict[str, Any] = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 384}


def small_decoder(texts: Texts, vocabulary: int = VOCABULARY, **shape: int) -> TextModel:
    """A byte-level BPE vocabulary learned from `texts` and a Llama over it; `shape` overrides `SHAPE`.

    Its weights are random: seed torch before, and train it after.
    """
    tokenizer = _byte_pairs(texts, vocabulary)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_LENGTH,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,  # a network this small would be embeddings for the most part otherwise
        initializer_range=0.05,
        **{**SHAPE, **shape},
    )
    return TextModel("text-generation", tokenizer, MAX_LENGTH, (), LlamaForCausalLM(config).eval(), fresh=True)


def _byte_pairs(texts: Texts, vocabulary: int) -> PreTrainedTokenizerFast:
    """Every text begins with its own token; the end is for training to add, since a prompt has none."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PADDING, BEGIN, END, UNKNOWN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts.texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
        pad_token=PADDING,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )
