"""What spark-submit starts: `driver.py PROCESSES file.py|-m module ...` runs that command in this process, or in as
many of the cluster's as PROCESSES says."""

import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

TAKEN = ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID")
"""What a process elsewhere needs to be the same run. Passwords and keys it has from its own environment."""
OURS = "LLMOPS_"


def call(words: list[str]) -> None:
    """Be `python WORDS`."""
    module = words[0] == "-m"
    sys.argv = words[1:] if module else words
    try:
        if module:
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(words[0]).parent))
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as ended:
        if ended.code not in (None, 0):
            raise


def call_elsewhere(words: list[str], environment: Mapping[str, str], folder: str) -> None:
    """The same in a process on a worker, in the driver's folder where the worker has it."""
    os.environ.update(environment)
    if Path(folder).is_dir():
        os.chdir(folder)
    call(words)


def share_out(words: list[str], processes: int) -> None:
    """Train in `processes` tasks of the cluster, which torch joins. Exits with 1 where one of them failed."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.ml.torch.distributor import TorchDistributor
    from pyspark.sql import SparkSession

    # spark-submit runs this file as a script: workers must find the function under its package's name
    from mlflow_llmops.cluster.driver import call_elsewhere

    spark = SparkSession.builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    environment = {name: value for name, value in os.environ.items() if name in TAKEN or name.startswith(OURS)}
    try:
        distributor = TorchDistributor(num_processes=processes, local_mode=False, use_gpu=False)
        distributor.run(call_elsewhere, words, environment, str(Path.cwd()))
    except (Py4JError, PySparkException, RuntimeError) as error:
        # its text repeats the log of the processes, which was shown line by line
        sys.exit(f"the training ended with {type(error).__name__}; what its processes said stands above")
    finally:
        spark.stop()


if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder is no place to import from
    if int(sys.argv[1]) > 1:
        share_out(sys.argv[2:], int(sys.argv[1]))
    else:
        call(sys.argv[2:])
