"""Write a large Parquet file of ids and texts."""

from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import pandas as pd
from annotated_types import Ge
from rich.text import Text

from mlflow_llmops.data.load import BUILTIN, load_data
from mlflow_llmops.script import Outcome, script


def rows(
    count: Annotated[int, "rows", Ge(1)] = 200_000,
    texts: Annotated[str, "data that the rows are drawn from"] = BUILTIN,
    file: Annotated[str, "Parquet file to write"] = "build/rows.parquet",
) -> Outcome:
    """Repeat the texts of a data set, each with a number of its own behind it, until there are enough."""
    found = load_data(texts, label_column=None).train.texts
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    drawn = [f"{text} {i}" for i, text in enumerate(islice(cycle(found), count))]
    pd.DataFrame({"id": range(count), "text": drawn}).to_parquet(file)
    return Outcome("", (Text(f"{count:,} rows in {file}"),))


if __name__ == "__main__":
    script(rows)()
