"""What a job that died costs: score, kill -9 at half, score again, and look at each row."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import pandas as pd
import pyarrow.parquet as pq
from annotated_types import Ge
from rich.text import Text

from mlflow_llmops.errors import DataError
from mlflow_llmops.script import Model, Outcome, script

WAIT = 0.05
SHARE = 0.5


def killed(
    model: Model,
    rows: Annotated[str, "Parquet file with the columns id and text"] = "build/rows.parquet",
    folder: Annotated[str, "where checkpoint and scored rows go"] = "build/killed",
    checkpoint_rows: Annotated[int, "rows of a task", Ge(1)] = 5000,
    master: Annotated[str, "Spark master"] = "local[2]",
) -> Outcome:
    """Score a Parquet file with a job that is killed at half, and with one that goes on."""
    kept, scored = Path(folder) / "kept", Path(folder) / "scored.parquet"
    if kept.exists():
        raise DataError(f"folder={folder}: {kept} is there from a job before; remove it, or run main to go on with it")
    kept.parent.mkdir(parents=True, exist_ok=True)
    given = {"model": model, "score-input": rows, "score-output": scored, "id-col": "id", "checkpoint": kept}
    given |= {"checkpoint-rows": checkpoint_rows, "master": master, "resume": "true", "overwrite": "true"}
    command = [sys.executable, "-m", "mlflow_llmops", "score"]
    command += [word for name, value in given.items() for word in (f"--{name}", str(value))]
    # each job is a run of its own
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_ID"}
    total = pq.ParquetFile(rows).metadata.num_rows
    finished = _killed_at_half(command, environment, kept, total)
    again = subprocess.run(command, env=environment)
    if again.returncode:
        sys.exit(again.returncode)
    ids = pd.read_parquet(scored, columns=["id"])["id"]
    said = f"killed with {finished:,} of {total:,} rows finished; after the second job {len(ids):,} rows are there"
    if len(ids) != total or ids.nunique() != total:
        raise DataError(f"{said}, {ids.nunique():,} of them different: that is a bug of the score step")
    return Outcome("", (Text(f"{said}, each once"),))


def _killed_at_half(command: list[str], environment: dict[str, str], kept: Path, total: int) -> int:
    """Start the job, wait until half of the rows lie in its checkpoint, kill it; gives how many lay there."""
    job = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        while (finished := _finished(kept)) < SHARE * total:
            if job.poll() is not None:
                raise DataError("the job ended before it could be killed; give more rows or fewer checkpoint_rows")
            time.sleep(WAIT)
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    return finished


def _finished(kept: Path) -> int:
    return sum(pq.ParquetFile(part).metadata.num_rows for part in (kept / "rows").glob("part-*.parquet"))


if __name__ == "__main__":
    script(killed)()
