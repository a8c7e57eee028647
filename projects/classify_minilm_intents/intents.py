"""Write build/intents.csv: what people say to a bank, by templates, so that nothing has to be downloaded."""

import random
from pathlib import Path

import pandas as pd

COUNT = 2400
PLACES = ["Lisbon", "Oslo", "Lima", "Kyoto", "Accra", "Quebec", "Turin", "Perth", "Cork", "Hanoi"]
SLOTS = {
    "amount": [f"{n} {unit}" for n in (20, 75, 140, 300, 1250) for unit in ("euros", "dollars", "pounds")],
    "who": ["my landlord", "my sister", "Mr Okafor", "the gym", "a friend", "the tax office", "my son", "Ines"],
    "card": ["card", "credit card", "debit card", "black card", "second card"],
    "account": ["checking account", "savings account", "joint account", "business account"],
    "where": PLACES,
    "when": ["today", "since Monday", "last week", "this morning", "on the 3rd", "before the trip"],
}
INTENTS = {
    "transfer": [
        "send {amount} to {who} {when}",
        "can you move {amount} to {who}",
        "pay {who} {amount} from my {account}",
    ],
    "balance": [
        "how much is left in my {account}",
        "what do I have on the {account} {when}",
        "is there {amount} on my {account}",
    ],
    "lost_card": [
        "I left my {card} in {where}",
        "someone took my {card} {when} in {where}",
        "my {card} is gone {when}",
    ],
    "block_card": [
        "freeze the {card} {when}",
        "stop all payments with my {card}",
        "lock my {card} while I am in {where}",
    ],
    "exchange": [
        "what does {amount} get me in {where}",
        "which rate do I get in {where} {when}",
        "change {amount} for {where}",
    ],
    "travel": [
        "I fly to {where} {when}, tell the bank",
        "will my {card} work in {where}",
        "note a trip to {where} {when}",
    ],
    "fee": [
        "why was I charged {amount} {when}",
        "what is the fee of {amount} on my {account}",
        "take back the {amount} for the {card}",
    ],
    "limit": [
        "raise the limit of my {card} to {amount}",
        "how much may I spend with the {card} in {where}",
        "let me pay {amount} at once {when}",
    ],
}


def intents(count: int = COUNT, seed: int = 0) -> pd.DataFrame:
    """Distinct texts with their intents, a few of them under a wrong one, as people label."""
    draw = random.Random(seed)
    rows: dict[str, str] = {}
    while len(rows) < count:
        intent = draw.choice(sorted(INTENTS))
        text = draw.choice(INTENTS[intent]).format(**{slot: draw.choice(values) for slot, values in SLOTS.items()})
        text = " ".join([*draw.choices(["please", "hi,", "well,", "so", "ok"], k=draw.randint(0, 2)), text])
        rows.setdefault(text, intent if draw.random() > 0.02 else draw.choice(sorted(INTENTS)))
    return pd.DataFrame({"text": list(rows), "label": list(rows.values())})


if __name__ == "__main__":
    Path("build").mkdir(exist_ok=True)
    intents().to_csv("build/intents.csv", index=False)
