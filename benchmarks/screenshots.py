"""The pictures of docs/comparing.md: a real Chromium on a real `mlflow server`, on the store that `make demo` leaves.

    python benchmarks/screenshots.py --store sqlite:///mlflow.db --into docs

Needs the extra `browser` and Debian's chromium. Shows the models of the experiment's last measured comparison:
compare-runs.png (the runs as a table), parallel-coordinates.png and scatter.png.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from playwright.sync_api import Page, sync_playwright

from mlflow_llmops import names

SHOWN = (names.ACCURACY, names.SPEEDUP, names.LATENCY_P95, names.DISK)
SIZE = {"width": 1200, "height": 640}
PATIENCE = 120
"""Seconds that the server may take to start, and a page to show what is waited for."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="sqlite:///mlflow.db")
    parser.add_argument("--experiment", default="llmops-quickstart")
    parser.add_argument("--into", type=Path, default=Path("docs"))
    given = parser.parse_args()
    mlflow.set_tracking_uri(given.store)
    experiment, parent, runs = compared(given.experiment)
    given.into.mkdir(parents=True, exist_ok=True)
    with server(given.store) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(1000 * PATIENCE)
        only = urllib.parse.quote(f"tags.`mlflow.parentRunId` = '{parent}'")
        page.goto(f"{address}/#/experiments/{experiment}/runs?searchFilter={only}")
        as_table(page, len(runs))
        page.screenshot(path=given.into / "compare-runs.png")
        asked = urllib.parse.urlencode({"runs": json.dumps(runs), "experiments": json.dumps([experiment])})
        page.goto(f"{address}/#/compare-runs?{asked}")
        as_parallel_coordinates(page)
        page.screenshot(path=given.into / "parallel-coordinates.png")
        as_scatter(page)
        page.screenshot(path=given.into / "scatter.png")
        browser.close()


def compared(experiment: str) -> tuple[str, str, list[str]]:
    """The experiment's id, its last run with a comparison, and the runs of the models in it, the baseline first."""
    found = mlflow.get_experiment_by_name(experiment)
    if found is None:
        raise SystemExit(f"--experiment {experiment} is not in {mlflow.get_tracking_uri()}; run make demo first")
    for run in mlflow.search_runs([found.experiment_id], f"tags.{names.VERB} = 'compare'", output_format="list"):
        inside = f"tags.mlflow.parentRunId = '{run.info.run_id}'"
        models = mlflow.search_runs([found.experiment_id], inside, output_format="list")
        if models:
            ids = [each.info.run_id for each in sorted(models, key=lambda each: each.info.start_time)]
            return found.experiment_id, run.info.run_id, ids
    raise SystemExit(f"--experiment {experiment} has no measured comparison; run mlflow-llmops compare first")


@contextmanager
def server(store: str) -> Iterator[str]:
    """The address of an `mlflow server` on that store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--workers", "1", "--backend-store-uri", store]
    command += ["--port", address.rpartition(":")[2]]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            end = time.monotonic() + PATIENCE
            while not answers(address):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise SystemExit(f"the MLflow server did not start: {log.read().decode()[-2000:]}")
                time.sleep(0.5)
            yield address
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
            process.wait(30)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5):
            return True
    except OSError:
        return False


def as_table(page: Page, count: int) -> None:
    """The runs with the columns that matter."""
    # the comparison's run, with those of its models inside; the columns are known when they are there
    page.locator(".ag-row").get_by_role("button").first.click()
    page.locator(".ag-row [col-id*='Run Name']").nth(count).wait_for()
    make_room(page)
    page.get_by_test_id("column-selection-dropdown").first.click()
    search = page.get_by_placeholder("Search columns")
    for column in ("Dataset", "Source", "Models", *SHOWN):
        search.fill(column)
        page.locator("[class*=tree-title]").filter(has_text=exactly(column)).first.click()
    page.keyboard.press("Escape")
    settle(page)


def as_parallel_coordinates(page: Page) -> None:
    """Of the metrics that matter and no parameters."""
    page.get_by_role("button", name="Clear All").click()
    make_room(page)
    page.locator("[class*=select-multiple]").nth(1).click()
    for name in SHOWN:
        page.keyboard.type(name)
        page.locator("[class*=select-item-option-content]:visible").filter(has_text=exactly(name)).click()
    page.keyboard.press("Escape")
    settle(page)


def as_scatter(page: Page) -> None:
    """Times as fast against accuracy."""
    page.get_by_role("tab", name="Scatter Plot").click()
    for axis, name in (("x", names.SPEEDUP), ("y", names.ACCURACY)):
        page.locator(f"#{axis}-axis-selector:visible").click()
        page.get_by_role("option", name=name, exact=True).click()
    settle(page)


def make_room(page: Page) -> None:
    """Without the assistant, which is open at first, and the menu."""
    for button in ("Close", "Toggle sidebar"):
        found = page.get_by_role("button", name=button).first
        if found.is_visible():
            found.click()


def exactly(text: str) -> re.Pattern[str]:
    return re.compile(f"^{re.escape(text)}$")


def settle(page: Page) -> None:
    """Until what moves has moved."""
    page.wait_for_timeout(5_000)


if __name__ == "__main__":
    main()
