"""What a user sees: a real Chromium on a real `mlflow server`, from the experiment to the comparison of its runs."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import mlflow
import pytest

from mlflow_llmops import names

pytestmark = [pytest.mark.browser, pytest.mark.slow]

VALUES = {"finetune.full": 0.812, "prune.neurons": 0.807, "quantize.int8_static": 0.797}


@pytest.fixture
def server(store: Path):
    """Three runs as the verbs leave them, and a server on their store."""
    for number, (method, accuracy) in enumerate(VALUES.items()):
        with mlflow.start_run(run_name=method):
            mlflow.set_tags({names.METHOD: method, names.VERB: method.split(".")[0]})
            mlflow.log_params({f"{method}.seed": number})
            mlflow.log_metrics({names.ACCURACY: accuracy, names.TEXTS_PER_S: 1000.0 * (number + 1)})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}"]
    command += ["--port", str(port), "--workers", "1"]
    with (store / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
                break
            except OSError:
                time.sleep(0.5)
        else:
            raise TimeoutError((store / "server.log").read_text()[-2000:])
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its workers too, which a busy machine lets end late
        process.wait(30)


def test_the_runs_of_an_experiment_are_compared_in_the_ui(server):
    from playwright.sync_api import expect, sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise FileNotFoundError("install Debian's chromium: apt-get install chromium")
    experiment = mlflow.get_experiment_by_name("tests").experiment_id
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(90_000)
        expect.set_options(timeout=90_000)
        page.goto(f"{server}/#/experiments/{experiment}/runs")
        for method in VALUES:
            expect(page.get_by_role("link", name=method).first).to_be_visible()
        page.screenshot(path="runs.png")
        page.locator(".ag-row .ag-selection-checkbox input").first.wait_for(state="attached")
        boxes = page.locator(".ag-row .ag-selection-checkbox:visible")
        for number in range(boxes.count()):
            boxes.nth(number).click()
        page.get_by_role("button", name=re.compile("^Compare")).first.click()
        page.wait_for_url(re.compile("compare-runs"))
        compared = json.loads(re.search(r"runs=(\[.*?\])", urllib.parse.unquote(page.url))[1])
        assert len(compared) == len(VALUES)
        body = page.locator("body")
        try:
            for text in (*VALUES, *map(str, VALUES.values()), names.ACCURACY):
                expect(body).to_contain_text(text, timeout=30_000)
        finally:
            page.screenshot(path="compare.png")
        browser.close()
