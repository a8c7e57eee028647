"""What an error of a row may say: one line, and no secret that this process knows."""

import os
import re

MOST_LETTERS = 500
SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)$", re.IGNORECASE)
"""How variables end that hold what must stand in no table."""


DISK = re.compile(r"(?:java\.n?io|org\.apache\.hadoop)\.\S*Exception: ([^\n]*)")
"""What a file system says, in the middle of Spark's pages."""


def of_the_disk(error: BaseException) -> str | None:
    """The words of the file system that an error of Spark's came from; None where it came from elsewhere."""
    said = DISK.search(str(error))
    return one_line(said[1])[:200] if said else None


def said_of(error: BaseException) -> str:
    """Its kind and first words."""
    return f"{type(error).__name__}: {one_line(str(error))}".removesuffix(": ")


def one_line(text: str) -> str:
    """Short, without line breaks, and with *** for every secret of the environment."""
    line = " ".join(text.split())
    for name, value in os.environ.items():
        if len(value) >= 8 and SECRET.search(name):
            line = line.replace(value, "***")
    return line[:MOST_LETTERS]
