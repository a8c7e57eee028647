"""Cut one table into train, dev and test, and keep the three apart."""

from mlflow_llmops.data.texts import Splits, Texts, stable_hash
from mlflow_llmops.errors import ConfigError, DataError

OVERLAPS = ("drop", "error", "allow")


def cut(rows: Texts, shares: tuple[float, ...]) -> list[Texts]:
    """Split by each text's hash into parts of about `shares` (which sum to 1); equal texts fall into one part."""
    bounds = [sum(shares[: i + 1]) for i in range(len(shares))]
    parts: list[list[int]] = [[] for _ in shares]
    for position, text in enumerate(rows.texts):
        place = stable_hash(text)
        parts[next((i for i, bound in enumerate(bounds) if place < bound), len(bounds) - 1)].append(position)
    return [rows.pick(part) for part in parts]


def keep_apart(train: Texts, dev: Texts, test: Texts, source: str, overlap: str = "drop") -> Splits:
    """Join three splits to one `Splits` in which no text of dev or test is trained on, and none of test is in dev.

    `overlap` says what happens to texts of train that stand in dev or test too, and to those of dev that stand in
    test: `drop` removes them from train or dev and counts them, `error` raises, `allow` keeps and counts them.

    Raises DataError for a split that is empty or blank, for a label that training never saw or that differs from
    another by white space only, for overlap under `error`.
    """
    if overlap not in OVERLAPS:
        raise ConfigError(f"overlap={overlap!r} is not known; choose one of: {', '.join(OVERLAPS)}")
    in_train = _shared(train, {*dev.texts, *test.texts})
    in_dev = _shared(dev, {*test.texts})
    if overlap == "error":
        _refuse(train, in_train, "the train split stand in the evaluation splits too", source)
        _refuse(dev, in_dev, "the dev split stand in the test split too", source)
    if overlap == "drop":
        train, dev = _without(train, in_train), _without(dev, in_dev)
    if not len(train) and in_train:
        raise DataError(
            f"data={source}: every text of the train split stands in dev or test too; give other test texts"
        )
    _check_texts({"train": train, "dev": dev, "test": test}, source)
    count = len(in_train) + len(in_dev)
    removed, kept = (count, 0) if overlap == "drop" else (0, count)
    splits = Splits(train, dev, test, source, removed, kept)
    if train.labels:
        _check_labels(splits)
    return splits


def _shared(split: Texts, others: set[str]) -> list[int]:
    return [position for position, text in enumerate(split.texts) if text in others]


def _without(split: Texts, positions: list[int]) -> Texts:
    gone = set(positions)
    return split.pick([i for i in range(len(split)) if i not in gone]) if gone else split


def _refuse(split: Texts, shared: list[int], where: str, source: str) -> None:
    if shared:
        raise DataError(
            f"data={source}: {len(shared)} texts of {where}, the first is {split.texts[shared[0]]!r:.80}; "
            "remove them, or choose overlap=drop or overlap=allow"
        )


def _check_texts(splits: dict[str, Texts], source: str) -> None:
    for name, split in splits.items():
        if len(split) and not any(text.strip() for text in split.texts):
            raise DataError(f"data={source}: every text of the {name} split is blank; check text_column")
    for name, split in splits.items():
        if not len(split):
            raise DataError(f"data={source}: the {name} split is empty; give more rows or a file of its own")


def _check_labels(splits: Splits) -> None:
    spelled: dict[str, str] = {}
    for label in sorted({*splits.labels, *splits.dev.labels, *splits.test.labels}):
        other = spelled.setdefault(label.strip(), label)
        if other != label:
            raise DataError(
                f"data={splits.source}: the labels {other!r} and {label!r} differ by white space only; spell them alike"
            )
    if len(splits.labels) < 2:
        raise DataError(
            f"data={splits.source}: the train split has one label only ({splits.labels[0]!r}); a classifier needs two"
        )
    known = set(splits.labels)
    unseen = sorted({*splits.dev.labels, *splits.test.labels} - known)
    if unseen:
        raise DataError(
            f"data={splits.source}: labels in the evaluation split that training never saw: {', '.join(unseen[:5])}"
            f"{' ...' if len(unseen) > 5 else ''} ({len(unseen)} in all); add them to train or drop those rows"
        )
