"""Registered models without artifacts, and processes that promote them."""

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

SCRIPT = Path(__file__).parent / "at_work.py"


@pytest.fixture
def registered():
    """A new registered model with so many versions; nothing in here reads their artifacts."""

    def make(name: str, versions: int = 3) -> str:
        MlflowClient().create_registered_model(name)
        for _ in range(versions):
            MlflowClient().create_model_version(name, "s3://nowhere/model")
        return name

    return make


@pytest.fixture
def at_work():
    """What the script prints, as lines."""

    def start(*arguments: str) -> list[str]:
        command = [sys.executable, "-W", "ignore", str(SCRIPT), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.split("\n")[:-1]

    return start
