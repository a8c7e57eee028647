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
    """Join three splits to one `Splits` in which no text of dev or test is trained on.

    `overlap` says what happens to texts of train that stand in dev or test too: `drop` removes them from train
    and counts them, `error` raises, `allow` keeps them.

    Raises DataError for an empty split, for a label that training never saw, for overlap under `error`.
    """
    if overlap not in OVERLAPS:
        raise ConfigError(f"overlap={overlap!r} is not known; choose one of: {', '.join(OVERLAPS)}")
    held_out = {*dev.texts, *test.texts}
    shared = [position for position, text in enumerate(train.texts) if text in held_out]
    if shared and overlap == "error":
        raise DataError(
            f"data={source}: {len(shared)} texts of the train split stand in the evaluation splits too, the first is "
            f"{train.texts[shared[0]]!r:.80}; remove them, or choose overlap=drop or overlap=allow"
        )
    if shared and overlap == "drop":
        gone = set(shared)
        train = train.pick([i for i in range(len(train)) if i not in gone])
    for name, split in {"train": train, "dev": dev, "test": test}.items():
        if not len(split):
            raise DataError(f"data={source}: the {name} split is empty; give more rows or a file of its own")
    splits = Splits(train, dev, test, source, len(shared) if overlap == "drop" else 0)
    if train.labels:
        _check_labels(splits)
    return splits


def _check_labels(splits: Splits) -> None:
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
