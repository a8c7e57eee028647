"""`builtin:docstrings`: the docstrings of packages that are always installed, with their library as the label.

No download may stand between a newcomer and the main job, and these are real texts by many authors. The files are
parsed, not imported. The data change with the installed versions; the fingerprint says so.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from os import cpu_count
from pathlib import Path

from tqdm.auto import tqdm

from mlflow_llmops.data.texts import Texts, stable_hash
from mlflow_llmops.errors import DataError

LIBRARIES = {
    "matplotlib": ("matplotlib", "mpl", "pyplot", "plt"),
    "pandas": ("pandas", "pd"),
    "pyspark": ("pyspark", "apache spark", "spark"),
    "scipy": ("scipy",),
    "sklearn": ("sklearn", "scikit-learn", "scikit learn"),
    "sqlalchemy": ("sqlalchemy",),
    "torch": ("torch", "pytorch"),
    "transformers": ("transformers", "hugging face", "huggingface"),
}
"""Each library, and the names that would give it away: they are masked in every text, whichever library it is of."""

MASK = "LIBRARY"
WORDS = (6, 40)
"""A text has at least the first number of words and is cut after the second."""
TEXTS_PER_LIBRARY = 2500
NOT_PROSE = {"tests", "test", "testing", "_vendor"}


def _pattern(name: str) -> str:
    # "pd" stands inside "update"; "torch" inside "PyTorch" and "torchrun", which give it away as well
    return rf"\b{name}\b" if len(name) <= 3 else re.escape(name)


_GIVEAWAYS = re.compile(
    "|".join(_pattern(name) for name in sorted(sum(LIBRARIES.values(), ()), key=len, reverse=True)),
    re.IGNORECASE,
)


@cache
def docstrings() -> Texts:
    """About 20,000 texts, at most `TEXTS_PER_LIBRARY` a label, each distinct, in an order that is fixed by hashing.

    Raises DataError where a library is installed without its sources.
    """
    rows: dict[str, str] = {}
    with ThreadPoolExecutor(cpu_count()) as pool:
        found = pool.map(_library_texts_elsewhere, LIBRARIES)
        for library, texts in zip(LIBRARIES, tqdm(found, "reading docstrings", len(LIBRARIES)), strict=True):
            if not texts:
                raise DataError(f"data=builtin:docstrings: {library} is installed without its Python sources")
            for text in texts:
                rows.setdefault(text, library)  # a text that two libraries share counts once, for the first
    # salted: the split is by the plain hash, and must not depend on which texts the cap lets in
    ordered = sorted(rows, key=lambda text: stable_hash(f"order {text}"))
    taken = dict.fromkeys(LIBRARIES, 0)
    kept = []
    for text in ordered:
        taken[rows[text]] += 1
        if taken[rows[text]] <= TEXTS_PER_LIBRARY:
            kept.append(text)
    return Texts(tuple(kept), tuple(rows[text] for text in kept))


def _library_texts_elsewhere(library: str) -> list[str]:
    """In a process of its own: parsing holds the interpreter's lock, and a caller's script may have no main guard."""
    command = [sys.executable, "-m", __spec__.name, library]
    texts: list[str] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return texts


def _library_texts(library: str) -> list[str]:
    spec = find_spec(library)
    if spec is None or spec.origin is None:
        return []
    root = Path(spec.origin).parent
    texts: dict[str, str] = {}
    for path in sorted(root.rglob("*.py")):
        if NOT_PROSE.isdisjoint(path.relative_to(root).parts):
            for docstring in _docstrings_of(path):
                words = _GIVEAWAYS.sub(MASK, docstring).split()
                if len(words) >= WORDS[0]:
                    text = " ".join(words[: WORDS[1]])
                    texts.setdefault(text.lower(), text)
    return list(texts.values())


def _docstrings_of(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # templates and fixtures that only look like Python
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring


if __name__ == "__main__":
    json.dump(_library_texts(sys.argv[1]), sys.stdout)
