"""A real Spark cluster on this machine: a standalone master and two workers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyspark
import pytest

from tests.serving_process import free_port

SPARK_CLASS = str(Path(pyspark.__file__).parent / "bin" / "spark-class")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a master whose two workers have one core each."""
    port = free_port()
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    master = ["org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]
    url = f"spark://127.0.0.1:{port}"
    commands = [master]
    for i in range(2):
        worker = ["org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--cores", "1", "--memory", "1g"]
        commands.append([*worker, "--webui-port", "0", "--work-dir", str(tmp_path / f"work{i}"), url])
    with (tmp_path / "cluster.log").open("w") as log:
        started = [
            subprocess.Popen([SPARK_CLASS, *c], env=environment, stdout=log, stderr=log, start_new_session=True)
            for c in commands
        ]
    try:
        deadline = time.monotonic() + 90
        while (tmp_path / "cluster.log").read_text().count("Registering worker") < 2:
            assert time.monotonic() < deadline, (tmp_path / "cluster.log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
