"""A prompt's template: `{name}` stands for a column; every other brace is what it is, so that JSON needs no escapes."""

import re
from collections.abc import Mapping

PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def columns_of(template: str) -> tuple[str, ...]:
    """The names in braces, in the order they first stand there."""
    return tuple(dict.fromkeys(PLACE.findall(template)))


def filled(template: str, values: Mapping[str, str]) -> str:
    """`template` with the places that `values` names filled in one go, so that braces in a text stay what they are."""
    return PLACE.sub(lambda found: values.get(found[1], found[0]), template)


def as_format_string(template: str) -> str:
    """The same template as `str.format`, and so LangChain, reads it: every other brace is doubled."""
    pieces, start = [], 0
    for found in PLACE.finditer(template):
        pieces += [_doubled(template[start : found.start()]), found[0]]
        start = found.end()
    return "".join([*pieces, _doubled(template[start:])])


def _doubled(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
