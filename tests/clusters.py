"""A real Spark cluster on this machine: a standalone master and two workers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyspark
import pytest

from tests.serving_process import free_port

SPARK_CLASS = str(Path(pyspark.__file__).parent / "bin" / "spark-class")


@dataclass(frozen=True)
class Cluster:
    url: str
    folder: Path
    workers: list[int]
    """Their processes."""

    def executors(self) -> list[psutil.Process]:
        """The processes in which tasks run. Others of the workers' come and go while it looks."""
        found = []
        for child in (child for pid in self.workers for child in psutil.Process(pid).children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                alive = child.status() != psutil.STATUS_ZOMBIE
                if alive and any("CoarseGrainedExecutor" in word for word in child.cmdline()):
                    found.append(child)
        return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A master and two workers of one core, each on a host of its own: Spark runs no copy of a task beside itself."""
    folder = tmp_path_factory.mktemp("cluster")
    port = free_port()
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable}
    url = f"spark://127.0.0.1:{port}"
    commands = [["master.Master", "--port", str(port), "--host", "127.0.0.1"]]
    for i in range(2):
        work = ["--cores", "1", "--memory", "1g", "--work-dir", str(folder / f"work{i}")]
        commands.append(["worker.Worker", "--host", f"127.0.0.{i + 2}", *work, url])
    started = []
    with (folder / "cluster.log").open("w") as log:
        for name, *options in commands:
            command = [SPARK_CLASS, f"org.apache.spark.deploy.{name}", "--webui-port", "0", *options]
            environment["SPARK_LOCAL_IP"] = options[options.index("--host") + 1]
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))
    try:
        deadline = time.monotonic() + 180
        while (folder / "cluster.log").read_text().count("Registering worker") < 2:
            assert time.monotonic() < deadline, (folder / "cluster.log").read_text()
            time.sleep(0.2)
        yield Cluster(url, folder, [process.pid for process in started[1:]])
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
