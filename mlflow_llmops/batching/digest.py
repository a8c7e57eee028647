"""What a folder holds, as one short name: two folders with equal files have the same one."""

import hashlib
from functools import lru_cache
from pathlib import Path


def digest_of(*folders: Path) -> str:
    """Of the relative names and the contents of all files in `folders`, in this order."""
    whole = hashlib.sha256()
    for folder in folders:
        whole.update(b"folder")
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            stat = path.stat()
            whole.update(f"{path.relative_to(folder).as_posix()}\0".encode("utf-8", "surrogateescape"))
            whole.update(_of_file(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return whole.hexdigest()


@lru_cache(maxsize=256)
def _of_file(path: str, size: int, changed: int, number: int) -> bytes:
    """A file that was not touched since is not read again: Spark's local mode loads the same folder for every task."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
