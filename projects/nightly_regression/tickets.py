"""Write a night's tickets, each with the team that answered it."""

import random
from pathlib import Path
from typing import Annotated

import pandas as pd
from annotated_types import Ge
from rich.text import Text

from mlflow_llmops.script import Outcome, script

WORDS = {
    "billing": ("invoice charge refund receipt price payment", "bill subscription tariff wallet voucher iban"),
    "login": ("password account user login email reset", "passkey sso token authenticator session qr"),
    "delivery": ("parcel courier address late package tracking", "locker drone pickup depot slot crate"),
    "device": ("screen battery cable charger broken speaker", "firmware hinge dock stylus earbud pairing"),
}
"""Of each team: the words that its tickets have, and those that they have once shifted."""
FILLER = [
    "hello",
    "I",
    "have",
    "a",
    "question",
    "about",
    "my",
    "the",
    "it",
    "is",
    "was",
    "not",
    "again",
    "please",
    "now",
]


def tickets(
    night: Annotated[int, "seed of what is drawn", Ge(0)] = 1,
    count: Annotated[int, "tickets", Ge(20)] = 3000,
    shifted: Annotated[bool, "two words in three are new ones"] = False,
    file: Annotated[str, "CSV file to write"] = "build/tonight.csv",
) -> Outcome:
    """Draw distinct tickets of two to four words of their team among others."""
    draw = random.Random(night)
    rows: dict[str, str] = {}
    while len(rows) < count:
        team = draw.choice(sorted(WORDS))
        known, new = (words.split() for words in WORDS[team])
        words = [draw.choice(new if shifted and draw.random() < 2 / 3 else known) for _ in range(draw.randint(2, 4))]
        words += draw.choices(FILLER, k=draw.randint(4, 10))
        draw.shuffle(words)
        rows.setdefault(" ".join(words), team)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"text": list(rows), "label": list(rows.values())}).to_csv(file, index=False)
    return Outcome("", (Text(f"{count:,} tickets in {file}"),))


if __name__ == "__main__":
    script(tickets)()
