"""A script that the tests start: promotions by real processes, killed on the way or two at once.

kill VERB COUNT: for n = 1 ... COUNT a process changes the places of m<n> and gets SIGKILL right before its n-th call
that writes, until one comes through. race ROUNDS: two processes promote version 2 and 3 of r<n> at the same moment,
both seen from before. Prints a line a process. It forks before any connection is open, so that each has its own.
"""

import json
import multiprocessing
import os
import signal
import sys

from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import GateFailed
from mlflow_llmops.registry import promotion
from mlflow_llmops.registry.places import look

WRITES = (
    "set_registered_model_tag",
    "set_model_version_tag",
    "delete_model_version_tag",
    "transition_model_version_stage",
    "set_registered_model_alias",
    "delete_registered_model_alias",
)


def die_before(nth):
    calls = []

    def counted(real):
        def call(*args, **kwargs):
            calls.append(args)
            if len(calls) == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for write in WRITES:
        setattr(MlflowClient, write, counted(getattr(MlflowClient, write)))


def killed(verb, nth):
    die_before(nth)
    if verb == "promote":
        promotion.promote(f"m{nth}", "2", names.PRODUCTION, [], "run")
    else:
        promotion.rollback(f"m{nth}", names.PRODUCTION, "it was slow", "run")


def say(what):
    """A whole line at once: `print` may write the line's end apart (PYTHONUNBUFFERED), after the other one's line."""
    os.write(sys.stdout.fileno(), f"{json.dumps(what)}\n".encode())


def racing(version, rounds, together):
    for n in range(1, rounds + 1):
        seen = look(f"r{n}")
        together.wait(60)
        try:
            promotion.promote(f"r{n}", version, names.PRODUCTION, [], "run", seen)
            say([n, version, "held"])
        except GateFailed:
            say([n, version, "refused"])
        together.wait(60)


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    if sys.argv[1] == "kill":
        processes = [fork.Process(target=killed, args=(sys.argv[2], n)) for n in range(1, int(sys.argv[3]) + 1)]
        for process in processes:
            process.start()
            process.join()
            print(process.exitcode, flush=True)
            if process.exitcode == 0:
                break
    else:
        together = fork.Barrier(2)
        processes = [fork.Process(target=racing, args=(v, int(sys.argv[2]), together)) for v in "23"]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        sys.exit(max(process.exitcode for process in processes))
