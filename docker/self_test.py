"""What an image must be able to do before anybody uses it: import, a tiny run, reload, score. Takes no download.

It is the last build step of docker/Dockerfile's target work and runs anywhere else that the package is installed. With
a folder it leaves a version of each runtime there, and what it answered, for `serve_test.py` in the smaller image.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

TOPICS = {"kitchen": "oven butter flour pan spoon sugar", "sea": "boat harbour wave sail anchor tide"}
FILLER = ("the", "a", "of", "with", "near", "under", "old", "new")


def main(kept: Path | None) -> None:
    """Train, quantize, register, reload in fresh processes, score through Spark. Raises where anything differs."""
    import mlflow
    import pandas as pd

    from mlflow_llmops.steps.compress import compress
    from mlflow_llmops.steps.score import score

    rows = [
        (f"{filler} {word} {other} {i}", topic)
        for topic, words in TOPICS.items()
        for i, filler in enumerate(FILLER)
        for word in words.split()
        for other in FILLER[:4]
    ]
    table = pd.DataFrame(rows, columns=["text", "label"])
    table.to_csv("rows.csv", index=False)
    small = {"data": "rows.csv", "register_as": "self-test", "measure_seconds": 0.5, "speed_grid": False}
    compress("finetune", "full", "builtin:encoder", options={"epochs": "3"}, **small)
    compress("quantize", "int8_dynamic", "models:/self-test/1", **small)  # onnxruntime
    compress("export", "openvino", "models:/self-test/1", **small)
    answers = mlflow.pyfunc.load_model("models:/self-test/2").predict(list(table["text"]))
    table[["text"]].to_parquet("rows.parquet")
    score("models:/self-test/2", "rows.parquet", "scored.parquet", master="local[1]")
    scored = pd.read_parquet("scored.parquet").set_index("text")["prediction"]
    differ = [
        text for text, label in zip(table["text"], answers["label"], strict=True) if scored[text]["label"] != label
    ]
    right = float((answers["label"] == table["label"]).mean())
    if differ or right < 0.9:
        raise SystemExit(f"self-test: {len(differ)} texts scored otherwise through Spark, {right:.2f} of labels right")
    for version in (2, 3) if kept else ():
        reference, folder = f"models:/self-test/{version}", Path(kept, str(version))
        shutil.copytree(mlflow.artifacts.download_artifacts(reference), folder / "version")
        found = mlflow.pyfunc.load_model(reference).predict(list(table["text"]))
        found.assign(text=table["text"])[["text", "label"]].to_json(folder / "answers.json", orient="records")
    sys.stdout.write(f"self-test: {len(table)} texts scored alike by pyfunc and Spark, {right:.2f} of labels right\n")


if __name__ == "__main__":
    kept = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(prefix="llmops-self-test-") as folder:
        os.chdir(folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(folder) / 'mlflow.db'}"
        main(kept)
        os.chdir("/")
