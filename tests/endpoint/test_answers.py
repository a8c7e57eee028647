"""The file of answers: where it lies, and what several processes write to it."""

import subprocess
import sys

from mlflow_llmops.endpoint.answers import AnswersFile, answers_path


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from mlflow_llmops.endpoint.answers import Answer, AnswersFile\n"
        "file = AnswersFile(Path(sys.argv[1]))\n"
        "for i in range(50): file.append(Answer(f'{sys.argv[2]}-{i}', 'long ' * 2000))\n"
    )
    path = tmp_path / "answers.jsonl"
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), str(i)]) for i in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    file = AnswersFile(path)
    assert all(f"{process}-{i}" in file for process in range(3) for i in range(50))
    assert (path.stat().st_mode & 0o777) == 0o600


def test_answers_lie_where_they_outlive_the_run(monkeypatch, tmp_path):
    monkeypatch.delenv("LLMOPS_ANSWERS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    paths = [answers_path(f"http://{host}/v1", model) for host in ("a:1", "b") for model in ("org/m", "n")]
    assert {path.parent for path in paths} == {tmp_path / "mlflow-llmops" / "answers"}
    assert len(set(paths)) == 4
    assert paths[0].name.startswith("a-1-org-m-")
