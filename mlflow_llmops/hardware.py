"""What machine the numbers come from. Standard library only: it runs inside `import mlflow`."""

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mlflow_llmops import names

INSTRUCTION_SETS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "sve",
)
"""Those that decide how fast int8 and bf16 are."""
RUNTIMES = ("mlflow", "torch", "transformers", "onnxruntime", "openvino", "nncf")


@cache
def hardware_tags() -> dict[str, str]:
    """CPU, instruction sets, cores this process may use, memory, GPUs, and the versions of the runtimes, as tags."""
    prefix = names.HARDWARE_PREFIX
    cpu = _cpuinfo()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    tags = {
        prefix + "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        prefix + "instruction_sets": " ".join(s for s in INSTRUCTION_SETS if s in cpu.get("flags", "").split()),
        prefix + "cores": str(cores),
        prefix + "memory_gib": _memory_gib(),
        prefix + "gpu": _gpus(),
    }
    for package in RUNTIMES:
        try:
            tags[names.RUNTIME_PREFIX + package] = version(package)
        except PackageNotFoundError:
            continue
    return {names.HARDWARE: hardware_key(tags), **{name: value for name, value in tags.items() if value}}


def hardware_key(tags: dict[str, str]) -> str:
    """One line that is equal where timings may be compared."""
    parts = [tags[names.HARDWARE_PREFIX + part] for part in ("cpu", "instruction_sets", "cores", "gpu")]
    return f"{parts[0]} ({parts[1]}) x{parts[2]}" + (f" + {parts[3]}" if parts[3] else "")


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    pairs = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    found: dict[str, str] = {}
    for key, _, value in pairs:
        # on ARM the instruction sets stand under "Features"
        found.setdefault({"Features": "flags"}.get(key.strip(), key.strip()), value.strip())
    return found


def _memory_gib() -> str:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return ""
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f}"


def _gpus() -> str:
    if not Path("/proc/driver/nvidia").exists():
        return ""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ", ".join(answer.stdout.split("\n")).strip(", ") if answer.returncode == 0 else ""
