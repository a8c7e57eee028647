"""What machine the numbers come from. Standard library only: it runs inside `import mlflow`."""

import os
import platform
import subprocess
from collections.abc import Collection, Sequence
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
    "avx512_bf16",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""Those that decide how fast int8 and bf16 are, as Linux calls them; `bf16` is ARM's."""
INT8 = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Any one of them multiplies int8 several times as fast as fp32."""
BF16 = ("amx_bf16", "avx512_bf16", "bf16")
"""Any one of them multiplies bf16; elsewhere it is emulated."""
_NOT_IN_KEY = ("avx512_bf16", "bf16")
"""Added after evidence was stored: in the key they would make it that of other hardware. A CPU's name decides them."""
RUNTIMES = ("mlflow", "torch", "transformers", "onnxruntime", "openvino", "nncf")


@cache
def hardware_tags() -> dict[str, str]:
    """CPU, instruction sets, cores this process may use, memory, GPUs, and the versions of the runtimes, as tags."""
    prefix = names.HARDWARE_PREFIX
    cpu = _cpuinfo()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    tags = {
        prefix + "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        prefix + "instruction_sets": " ".join(instruction_sets(cpu.get("flags", ""))),
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
    cpu, sets, cores, gpu = (tags[names.HARDWARE_PREFIX + part] for part in ("cpu", "instruction_sets", "cores", "gpu"))
    keyed = " ".join(each for each in sets.split() if each not in _NOT_IN_KEY)
    return f"{cpu} ({keyed}) x{cores}" + (f" + {gpu}" if gpu else "")


def instruction_sets(flags: str) -> tuple[str, ...]:
    """Those of `INSTRUCTION_SETS` that stand in the flags of a CPU, in the order of the table."""
    return tuple(each for each in INSTRUCTION_SETS if each in flags.split())


def this_cpu() -> tuple[str, ...] | None:
    """The instruction sets of this machine; None where the system does not say."""
    flags = _cpuinfo().get("flags")
    return None if flags is None else instruction_sets(flags)


def lacking(wanted: Sequence[str], found: Collection[str] | None) -> str:
    """What a CPU lacks, as a clause; empty where one of `wanted` was found, none is wanted or nothing is known."""
    if not wanted or found is None or set(wanted) & set(found):
        return ""
    return f"this CPU lacks what makes it fast (any one of {', '.join(wanted)})"


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    return parsed(path.read_text(encoding="utf-8", errors="replace")) if path.exists() else {}


def parsed(cpuinfo: str) -> dict[str, str]:
    """The fields of the first core in the text of /proc/cpuinfo."""
    pairs = (line.partition(":") for line in cpuinfo.splitlines())
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
