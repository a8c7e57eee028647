"""What a process that only predicts has to load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def imported_by():
    """The names of the modules that a fresh process holds after it loaded a pyfunc from a folder and predicted."""

    def of(folder: Path, texts: list[str], **given) -> set[str]:
        code = (
            "import json, sys, mlflow.pyfunc\n"
            f"model = mlflow.pyfunc.load_model({str(folder)!r})\n"
            f"assert len(model.predict({texts!r}, **{given!r})) == {len(texts)}\n"
            "print(json.dumps(sorted(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
        return set(json.loads(done.stdout))

    return of
