"""An MLflow model as code for the tests of scoring: what a text begins with is what happens to its batch.

It answers with the text's length and writes down each text that it was asked.
"""

import os
import signal
import time
import urllib.request
from pathlib import Path

import mlflow
from mlflow.pyfunc import PythonModel


class Moody(PythonModel):
    def load_context(self, context):
        self.config = dict(context.model_config)

    def predict(self, context, model_input, params=None):
        texts = [str(text) for text in model_input.iloc[:, 0]]
        log = Path(self.config["log"])
        for text in texts:
            if text.startswith("kill") and not log.with_suffix(".killed").exists():
                log.with_suffix(".killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        with log.open("a") as file:
            file.write("".join(f"{text[:40]!r}\n" for text in texts))
        if len(texts) > self.config.get("most", 10**9):
            raise MemoryError("out of memory")
        if any(text.startswith("boom") for text in texts):
            raise RuntimeError(f"it went off, {os.environ.get('LLMOPS_TEST_API_KEY')}")
        if any(text.startswith("flaky") for text in texts) and not log.with_suffix(".mended").exists():
            raise ConnectionError("try again later")
        if any(text.startswith("slow") for text in texts) and not log.with_suffix(".slow").exists():
            log.with_suffix(".slow").touch()
            time.sleep(600)  # for as long as nobody does its work
        if any(text.startswith("short") for text in texts):
            return []
        if any(text.startswith("type") for text in texts):
            return ["no number"] * len(texts)
        time.sleep(self.config.get("seconds", 0.0) * len(texts))
        if "url" in self.config:
            return [self._ask(text) for text in texts]
        return [float(len(text)) for text in texts]

    def _ask(self, text):
        key = os.environ["LLMOPS_TEST_API_KEY"]
        request = urllib.request.Request(self.config["url"], text.encode(), {"Authorization": key})
        with urllib.request.urlopen(request) as answer:
            return float(answer.read())


mlflow.models.set_model(Moody())
