"""A job that was submitted: it is waited for, cancelled, and its run ends as it did."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlflow.entities import RunStatus
from mlflow.projects.submitted_run import SubmittedRun
from mlflow.tracking import MlflowClient

TO_END = 20.0
"""Seconds that a cancelled job has to end by itself, before it is killed."""
TO_SAY = 15.0
"""Seconds that processes elsewhere have to notice that their driver is gone and to end their run."""
PARENT = "mlflow.parentRunId"


class SparkJob(SubmittedRun):
    """spark-submit in a session of its own, so that Ctrl-C reaches it through us alone. Its log is ours.

    The run ends FINISHED, FAILED or KILLED even where the job could not say so itself.
    """

    def __init__(self, run_id: str, command: list[str], folder: Path, environment: dict[str, str], elsewhere: bool):
        self._run_id = run_id
        self._elsewhere = elsewhere
        self._cancelled = False
        # workers must be this Python: PATH may have another one first
        environment = {"PYSPARK_PYTHON": sys.executable, **os.environ, **environment}
        self.process = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
        self._settled = threading.Event()  # Ctrl-C inside Thread.join makes Python 3.11 take the thread for ended
        threading.Thread(target=self._watch, name=f"llmops-spark-{run_id}").start()

    @property
    def run_id(self) -> str:
        return self._run_id

    def wait(self) -> bool:
        """Until the job and its run have ended; whether they did well."""
        self._settled.wait()
        return self.get_status() == "FINISHED"

    def get_status(self) -> str:
        """Of the job, as MLflow names the states of runs."""
        if not self._settled.is_set():
            return "RUNNING"
        return "FINISHED" if self.process.returncode == 0 else "KILLED" if self._cancelled else "FAILED"

    def cancel(self) -> None:
        """End the job, by force after TO_END seconds, and wait until its run is KILLED."""
        if not self._settled.is_set():
            self._cancelled = True
            self._signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(TO_END)
            self._signal(signal.SIGKILL)
        self._settled.wait()

    def _watch(self) -> None:
        self.process.wait()
        self._signal(signal.SIGKILL)  # where spark-submit alone was killed, its driver is left
        try:
            self._settle()
        finally:
            self._settled.set()

    def _settle(self) -> None:
        client = MlflowClient()
        if self.process.returncode == 0:
            if not self._ended(client):
                client.set_terminated(self._run_id, "FINISHED")
            return
        if self._elsewhere:
            _until(lambda: self._ended(client), TO_SAY)
        run, status = client.get_run(self._run_id), "KILLED" if self._cancelled else "FAILED"
        inside = f"tags.`{PARENT}` = '{self._run_id}' and attributes.status = 'RUNNING'"
        for child in client.search_runs([run.info.experiment_id], inside):
            client.set_terminated(child.info.run_id, status)
        client.set_terminated(self._run_id, status)

    def _ended(self, client: MlflowClient) -> bool:
        status = RunStatus.from_string(client.get_run(self._run_id).info.status)
        return bool(RunStatus.is_terminated(status))

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """A scheduler or a container's stop ends the job as its user would. Outside of the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.2)
