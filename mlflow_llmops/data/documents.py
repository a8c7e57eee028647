"""A folder of texts to look things up in."""

from pathlib import Path

from mlflow_llmops.errors import DataError

SUFFIXES = (".txt", ".md", ".rst")


def load_documents(folder: str) -> list[tuple[str, str]]:
    """Each file's path inside `folder` and its text, sorted by path; empty files are left out.

    Raises DataError where there is none, or one that is no UTF-8.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"documents={folder}: there is no such folder; check the path (seen from {Path.cwd()})")
    found = []
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.suffix.lower() in SUFFIXES):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"documents={folder}: {path} is not UTF-8; convert it, for example with iconv") from error
        if text.strip():
            found.append((path.relative_to(root).as_posix(), text))
    if not found:
        raise DataError(f"documents={folder}: the folder holds no text in {', '.join(SUFFIXES)} files")
    return found
