"""The house's table: a file imports only what stands beneath it. Read from the sources with `ast`."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mlflow_llmops"
HEAVY = {"torch", "transformers", "mlflow", "pyspark", "click"}

WORDS = {"", "names", "errors", "hardware"}
GROUND = {"engines", "batching", "endpoint", "data", "models", "methods", "measure"}
ALLOWED = {
    "__init__": set(),
    "names": set(),
    "errors": set(),
    "hardware": {"names"},
    "engines": WORDS,
    "batching": WORDS,
    "endpoint": WORDS,
    "data": WORDS | {"engines"},
    "models": WORDS | {"engines", "data"},
    "methods": WORDS | {"models", "data", "engines", "batching", "endpoint"},
    "measure": WORDS | {"models", "data", "engines", "batching"},
    "tracking": WORDS | GROUND,
    "flavors": WORDS | {"tracking", "batching", "endpoint", "engines", "models"},
    "registry": WORDS | {"tracking", "measure"},
    "scoring": WORDS | {"flavors", "batching", "registry", "tracking"},
    "cluster": WORDS,
    "serving": WORDS | {"flavors", "batching", "engines", "models", "registry", "tracking"},
    "search": WORDS | {"models", "data", "engines", "methods", "measure"},
    "steps": WORDS | GROUND | {"tracking", "flavors", "registry", "scoring", "search", "serving"},
    "cli": WORDS | {"steps", "methods", "mlproject"},
    "script": WORDS | {"cli", "steps"},
    "__main__": {"cli"},
    "mlproject": WORDS | {"steps", "methods"},
    "plugins/run_context_provider": {"names", "hardware"},
    "plugins/model_evaluator": WORDS | {"measure", "tracking"},
    "plugins/project_backend": WORDS | {"cluster"},
    "plugins/deployments": WORDS | {"serving"},
    "plugins/__init__": set(),
}
THIRD_PARTY = {
    "names": set(),
    "errors": set(),
    "hardware": set(),
    "__init__": set(),
    "engines": HEAVY - HEAVY,
    "batching": HEAVY - HEAVY,
    "endpoint": HEAVY - HEAVY,
    "data": HEAVY - HEAVY,
    "models": {"torch", "transformers"},
    "methods": {"torch", "transformers"},
    "measure": {"torch", "transformers"},
    "tracking": {"mlflow"},
    "flavors": {"mlflow"},
    "registry": {"mlflow"},
    "scoring": {"mlflow", "pyspark"},
    "cluster": {"mlflow", "pyspark"},
    "serving": {"mlflow", "transformers"},
    "search": {"torch"},
    "steps": {"mlflow", "torch"},
    "cli": {"click"},
    "script": set(),
    "__main__": set(),
    "mlproject": set(),
    "plugins/run_context_provider": {"mlflow"},
    "plugins/model_evaluator": {"mlflow"},
    "plugins/project_backend": {"mlflow"},
    "plugins/deployments": {"mlflow", "click"},
    "plugins/__init__": set(),
}
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """The folder on the ground and first floor, the file on the roof."""
    first = path.parts[0]
    return f"plugins/{path.stem}" if first == "plugins" else first.removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_only_what_stands_beneath_it(path):
    room = room_of(path)
    for name in imports_of(path):
        top, _, rest = name.partition(".")
        if top == "mlflow_llmops":
            other = rest.split(".")[0]
            known = other in {room_of(file) for file in FILES} | {"plugins"}
            assert not known or other == room or other in ALLOWED[room], f"{path} imports {name}"
        elif top in HEAVY:
            assert top in THIRD_PARTY[room], f"{path} imports {name}"


def test_the_exported_flavor_stays_light():
    assert not {
        name for name in imports_of(Path("flavors/exported_text.py")) if name.startswith("mlflow_llmops.models")
    }


def test_no_file_is_longer_than_400_lines_and_the_median_is_under_120():
    lengths = sorted(len((PACKAGE / path).read_text(encoding="utf-8").splitlines()) for path in FILES)
    assert lengths[-1] <= 400
    assert lengths[len(lengths) // 2] < 120


def test_only_one_file_starts_runs_and_only_one_sets_stages():
    sources = {path: (PACKAGE / path).read_text(encoding="utf-8") for path in FILES}
    assert [str(p) for p, text in sources.items() if "mlflow.start_run(" in text] == ["tracking/run.py"]
    assert [str(p) for p, text in sources.items() if "transition_model_version_stage" in text] == [
        "registry/promotion.py"
    ]
    printers = [str(path) for path, text in sources.items() if re.search(r"(?<!\.)\bprint\(", text)]
    assert printers == []


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_mlflow_brings_our_plugins_and_no_torch():
    code = (
        "import sys, mlflow\n"
        "from mlflow.models.evaluation import list_evaluators\n"
        "assert 'llmops' in list_evaluators()\n"
        "print(*sorted({'torch', 'transformers', 'openvino', 'mlflow_llmops.plugins.run_context_provider',"
        " 'mlflow_llmops.plugins.model_evaluator'} & set(sys.modules)))"
    )
    assert run_python(code) == "mlflow_llmops.plugins.model_evaluator mlflow_llmops.plugins.run_context_provider"


def test_our_plugins_add_at_most_30_ms_to_the_import_of_mlflow():
    code = (
        "import time, sys\n"
        "import mlflow\n"
        "ours = [name for name in sys.modules if name.startswith('mlflow_llmops')]\n"
        "assert ours\n"
        "for name in ours: del sys.modules[name]\n"
        "start = time.perf_counter()\n"
        "import mlflow_llmops.plugins.run_context_provider, mlflow_llmops.plugins.model_evaluator\n"
        "print((time.perf_counter() - start) * 1000)"
    )
    assert min(float(run_python(code)) for _ in range(3)) < 30


def test_a_machine_without_cpuinfo_and_git_still_gets_tags(monkeypatch):
    from mlflow_llmops import hardware, names

    monkeypatch.setattr(hardware, "_cpuinfo", dict)
    monkeypatch.setattr(hardware, "_memory_gib", str)
    tags = hardware.hardware_tags.__wrapped__()
    assert tags[names.HARDWARE]
    assert all(tags.values())
