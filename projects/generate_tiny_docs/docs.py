"""From a folder of text files to a causal model with weights of 4 bits, each step a nested run."""

from pathlib import Path
from typing import Annotated

import pandas as pd
from annotated_types import Gt, Lt

from mlflow_llmops import names
from mlflow_llmops.data.builtin import docstrings
from mlflow_llmops.data.documents import load_documents
from mlflow_llmops.models.scratch_decoder import SCRATCH_DECODER
from mlflow_llmops.script import MeasureSeconds, Outcome, Seed, script
from mlflow_llmops.steps.compare import compare
from mlflow_llmops.steps.compress import compress
from mlflow_llmops.tracking.run import start_run

BUILD = Path("build")
TASK = "text-generation"
SERVE = "mlflow run projects/generate_tiny_docs --env-manager local -e serve"


def docs(
    documents: Annotated[str | None, "folder of .txt, .md and .rst files; auto: docstrings, as files"] = None,
    register_as: Annotated[str, "registered model that gets the four versions"] = "tiny-docs",
    epochs: Annotated[float, "passes over the texts, of the first training and of distilling", Gt(0)] = 4.0,
    fraction: Annotated[float, "share of feed-forward units that is cut", Gt(0), Lt(1)] = 0.5,
    measure_seconds: MeasureSeconds = 10.0,
    seed: Seed = 0,
) -> Outcome:
    """Train, prune, distil, quantize and compare a causal model of text files."""
    params = {"docs.documents": documents, "docs.epochs": epochs, "docs.fraction": fraction, "docs.seed": seed}
    with start_run("generate_tiny_docs", {names.TASK: TASK}, params) as run:
        data = passages(documents or written_docstrings())

        def step(verb: str, method: str, model: str, **options: object) -> str:
            """Give the new version's reference; both trainings are told the same number of passes."""
            given = {name: str(value) for name, value in options.items()}
            common = {"data": data, "task": TASK, "measure_seconds": measure_seconds, "seed": seed}
            outcome = compress(verb, method, model, register_as=register_as, options=given, **common)
            return f"models:/{register_as}/{outcome.values['link'].version}"

        whole = step("finetune", "full", SCRATCH_DECODER, epochs=epochs)
        cut = step("prune", "neurons", whole, fraction=fraction, recovery="none")
        taught = step("distill", "logits", whole, student=cut, epochs=epochs)
        small = step("quantize", "weight_only", taught, bits=4, group_size=32)
        versions = ",".join(reference.rpartition("/")[2] for reference in (whole, cut, taught, small))
        compared = compare(register_as, versions, data, measure_seconds=2 * measure_seconds)
    return Outcome(run.info.run_id, (*compared.shown, f"to serve it: {SERVE} -P model={small}"))


def passages(documents: str) -> str:
    """The paragraphs of all files, each once, as a JSONL file."""
    texts = [" ".join(part.split()) for _, text in load_documents(documents) for part in text.split("\n\n")]
    BUILD.mkdir(exist_ok=True)
    frame = pd.DataFrame({"text": [text for text in dict.fromkeys(texts) if len(text) >= 40]})
    frame.to_json(BUILD / "passages.jsonl", orient="records", lines=True)
    return str(BUILD / "passages.jsonl")


def written_docstrings(count: int = 6000) -> str:
    """Docstrings of the installed packages as one text file a package."""
    found = docstrings()
    folder = BUILD / "docstrings"
    folder.mkdir(parents=True, exist_ok=True)
    for label in sorted(set(found.labels)):
        of_it = [text for text, its in zip(found.texts[:count], found.labels[:count], strict=True) if its == label]
        (folder / f"{label}.txt").write_text("\n\n".join(of_it), encoding="utf-8")
    return str(folder)


if __name__ == "__main__":
    script(docs)()
