"""What the smaller image must be able to do: serve the versions that `self_test.py` left, without torch.

It is the last build step of docker/Dockerfile's target serve-exported and needs no download.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

SECONDS = 120


def main(kept: Path) -> None:
    """Each folder in turn. Raises SystemExit where anything differs."""
    if importlib.util.find_spec("torch"):
        raise SystemExit("serve-test: torch is installed here, so this shows nothing")
    for each in sorted(kept.iterdir()):
        check(each)


def check(kept: Path) -> None:
    """Serve the version, ask every text of `answers.json`, compare the labels."""
    rows = json.loads((kept / "answers.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        port = Path(folder) / "port"
        command = ["mlflow-llmops", "serve", "--model", str(kept / "version"), "--port", "0", "--port-file", str(port)]
        server = subprocess.Popen(command)
        try:
            found = ask(f"http://127.0.0.1:{said(port, server)}/invocations", [row["text"] for row in rows])
        finally:
            server.terminate()
            server.wait(60)
    differ = [row["text"] for row, label in zip(rows, found, strict=True) if row["label"] != label]
    if differ:
        raise SystemExit(f"serve-test: {len(differ)} texts answered otherwise, the first: {differ[0]!r}")
    sys.stdout.write(f"serve-test: {len(rows)} texts answered alike without torch\n")


def said(port: Path, server: subprocess.Popen[bytes]) -> str:
    """The port, once the server listens. Raises SystemExit where it ends or takes too long."""
    end = time.monotonic() + SECONDS
    while not (port.exists() and port.read_text()):
        if server.poll() is not None or time.monotonic() > end:
            raise SystemExit("serve-test: the server did not start")
        time.sleep(0.1)
    return port.read_text()


def ask(address: str, texts: list[str]) -> list[str]:
    """The label of each text."""
    request = urllib.request.Request(
        address, json.dumps({"inputs": texts}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return [each["label"] for each in json.load(answer)["predictions"]]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
