"""Which pieces of a tokenizer can go, so that the texts it is kept for are cut as before and all others can be spelled.

It works on the JSON of the `tokenizers` library, which every fast tokenizer has.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer

from mlflow_llmops.errors import ModelError

CHUNK = 10_000
"""Texts that are encoded at once: their pieces take memory."""


@dataclass(frozen=True)
class Trimmed:
    """A tokenizer with fewer pieces, and the old number of each that is left, in the order of their new ones."""

    tokenizer: Tokenizer
    kept: tuple[int, ...]


@dataclass(frozen=True)
class _Left:
    """Pieces that stay, and, for BPE, the merges that make them."""

    pieces: set[str]
    merges: set[tuple[str, str]] | None = None


def trim(tokenizer: Tokenizer, texts: Sequence[str], also: Collection[int] = ()) -> Trimmed:
    """Leave the pieces that `texts` are cut into, those that spell anything else, all added tokens and the numbers
    `also`; `texts` are cut into the same pieces as before.

    Raises ModelError, naming the known, for another kind of tokenizer.
    """
    whole, spec = _plain(tokenizer), json.loads(tokenizer.to_str())
    kind = spec["model"]["type"]
    if kind not in KINDS or (spec["model"].get("continuing_subword_prefix") and kind == "BPE"):
        raise ModelError(f"the vocabulary of a {kind} tokenizer cannot be cut yet; those that can: {', '.join(KINDS)}")
    numbers = whole.get_vocab()
    named = {number: piece for piece, number in numbers.items()}
    used = {piece for pieces in _cut(whole, texts) for piece in pieces}
    used |= {named[number] for number in also if number in named}
    trimmed = _without(spec, numbers, KINDS[kind](whole, spec["model"], used))
    now = _cut(_plain(trimmed.tokenizer), texts)
    changed = [text for text, before, after in zip(texts, _cut(whole, texts), now, strict=True) if before != after]
    if changed:  # a piece that is no longer there stood in the way of another cut
        used |= _parts(whole, changed, spec["model"].get("continuing_subword_prefix") or "")
        trimmed = _without(spec, numbers, KINDS[kind](whole, spec["model"], used))
        if list(_cut(whole, changed)) != list(_cut(_plain(trimmed.tokenizer), changed)):
            raise ModelError(f"this {kind} tokenizer cuts texts otherwise without unused pieces; leave it as it is")
    return trimmed


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that gives all of a text and nothing more."""
    copied = Tokenizer.from_str(tokenizer.to_str())
    copied.no_truncation()
    copied.no_padding()
    return copied


def _cut(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), CHUNK):
        for encoding in tokenizer.encode_batch(list(texts[start : start + CHUNK])):
            yield encoding.tokens


def _parts(tokenizer: Tokenizer, texts: Sequence[str], prefix: str) -> set[str]:
    """Every piece that any cut of the texts' words could use: with all of them nothing changes."""
    known = tokenizer.get_vocab()
    longest = max(map(len, known))
    found: set[str] = set()
    for text in texts:
        for word in _words(tokenizer, text):
            for start in range(len(word)):
                for end in range(start + 1, min(len(word), start + longest) + 1):
                    found |= {word[start:end], prefix + word[start:end]}
    return found & known.keys()


def _word_pieces(tokenizer: Tokenizer, model: Mapping[str, Any], used: set[str]) -> _Left:
    """The longest piece that fits is taken first: it is among those that stay, so it is still the longest."""
    prefix = model["continuing_subword_prefix"]
    known = model["vocab"]

    def spells(piece: str) -> bool:
        """It is the only one for a letter: a single one, or longer with a letter that has no piece of its own. Those
        with a letter that no word has in its place are never used: BERT splits words at Chinese letters and marks."""
        inside = piece.startswith(prefix) and len(piece) > len(prefix)
        bare = piece.removeprefix(prefix) if inside else piece
        letters = [letter if place == 0 and not inside else prefix + letter for place, letter in enumerate(bare)]
        if len(letters) > 1 and known.keys() >= set(letters):
            return False
        return all(_is_met(tokenizer, letter, within=inside or place > 0) for place, letter in enumerate(bare))

    return _Left({piece for piece in known if spells(piece)} | (used & known.keys()) | {model["unk_token"]})


def _is_met(tokenizer: Tokenizer, letter: str, within: bool) -> bool:
    """A letter stands within a word, or begins one, when texts are made ready to be cut."""
    for before in ("a", letter) if within else ("",):
        for word in _words(tokenizer, before + letter):
            if letter in word[int(within) :]:
                return True
    return False


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    said = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
    if not tokenizer.pre_tokenizer:
        return [said]
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(said)]


def _byte_pairs(tokenizer: Tokenizer, model: Mapping[str, Any], used: set[str]) -> _Left:
    """The first merge of the list that fits is done first: those that make the used pieces stay, and with them the
    pieces on the way, so each is still the first at its turn."""
    suffix = model.get("end_of_word_suffix") or ""
    pairs = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    rank = {pair: place for place, pair in enumerate(pairs)}
    done: set[tuple[str, str]] = set()
    for piece in used & model["vocab"].keys():
        done |= _merges_of(piece, rank, suffix)
    letters = {piece for piece in model["vocab"] if len(piece.removesuffix(suffix)) <= 1 or _is_byte(piece)}
    on_the_way = {piece for left, right in done for piece in (left, right, left + right)}
    unknown = {model["unk_token"]} if model.get("unk_token") else set()
    return _Left(letters | on_the_way | (used & model["vocab"].keys()) | unknown, done)


def _merges_of(piece: str, rank: Mapping[tuple[str, ...], int], suffix: str) -> set[tuple[str, str]]:
    """Those that are done to make a piece of its letters; inside of a longer word they are the same."""
    ends = bool(suffix) and piece.endswith(suffix)
    parts = list(piece.removesuffix(suffix) if ends else piece)
    if ends and parts:
        parts[-1] += suffix
    done: set[tuple[str, str]] = set()
    while len(parts) > 1:
        best = min(pairwise(parts), key=lambda pair: rank.get(pair, len(rank)))
        if best not in rank:
            break
        done.add(best)
        joined: list[str] = []
        for part in parts:
            if joined and (joined[-1], part) == best:
                joined[-1] += part
            else:
                joined.append(part)
        parts = joined
    return done


def _unigram(tokenizer: Tokenizer, model: Mapping[str, Any], used: set[str]) -> _Left:
    """The likeliest cut is among those that are left. The least likely piece stays, because the price of an unknown
    letter is reckoned from it."""
    pieces = [piece for piece, _ in model["vocab"]]
    letters = {piece for piece in pieces if len(piece) == 1}
    spelling = {piece for piece in pieces if not set(piece) <= letters or len(piece) == 1 or _is_byte(piece)}
    least = min(model["vocab"], key=lambda entry: entry[1])[0]
    unknown = {pieces[model["unk_id"]]} if model.get("unk_id") is not None else set()
    return _Left(spelling | (used & set(pieces)) | {least} | unknown)


def _is_byte(piece: str) -> bool:
    """As SentencePiece writes the bytes of letters that it does not know."""
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


KINDS: dict[str, Callable[[Tokenizer, Mapping[str, Any], set[str]], _Left]] = {
    "WordPiece": _word_pieces,
    "BPE": _byte_pairs,
    "Unigram": _unigram,
}


def _without(spec: Mapping[str, Any], numbers: Mapping[str, int], left: _Left) -> Trimmed:
    """The tokenizer with what is left, numbered anew in the old order."""
    added = {token["content"] for token in spec["added_tokens"]}
    kept = sorted({number for piece, number in numbers.items() if piece in left.pieces or piece in added})
    renumbered = {old: new for new, old in enumerate(kept)}
    new = json.loads(json.dumps(spec))
    model = new["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {piece: renumbered[old] for piece, old in model["vocab"].items() if old in renumbered}
    else:
        model["unk_id"] = renumbered.get(model["unk_id"])
        model["vocab"] = [entry for old, entry in enumerate(model["vocab"]) if old in renumbered]
    if left.merges is not None:
        pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if tuple(pair) in left.merges]
    for token in new["added_tokens"]:
        token["id"] = renumbered[token["id"]]
    if new.get("padding"):
        new["padding"]["pad_id"] = renumbered.get(new["padding"]["pad_id"], 0)
    _renumber_processor(new.get("post_processor"), renumbered)
    return Trimmed(Tokenizer.from_str(json.dumps(new)), tuple(kept))


def _renumber_processor(processor: dict[str, Any] | None, renumbered: Mapping[int, int]) -> None:
    """What is put around a text is known by its numbers too."""
    if processor is None:
        return
    for each in processor.get("processors", ()):
        _renumber_processor(each, renumbered)
    for name in ("sep", "cls"):
        if name in processor:
            processor[name][1] = renumbered[processor[name][1]]
    if isinstance(processor.get("special_tokens"), dict):
        for token in processor["special_tokens"].values():
            token["ids"] = [renumbered[number] for number in token["ids"]]
