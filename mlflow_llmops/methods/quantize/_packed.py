"""How weights are packed, whichever runtime reads them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Packing:
    """The options of `weight_only`, each decided."""

    bits: int
    group_size: int
    algorithm: str
    symmetric: bool
    embeddings: bool
