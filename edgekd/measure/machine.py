"""The machine a figure was measured on: each figure names it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import psutil

# Instruction sets that change what integer kernels a runtime picks.
TOLD_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "sve",
)


def describe_machine() -> dict[str, Any]:
    """CPU model, instruction sets, cores, the cores this process may use, memory, kernel, GPU if there is one."""
    cpu, flags = _cpuinfo()
    return {
        "cpu": cpu,
        "arch": platform.machine(),
        "isa": [flag for flag in TOLD_FLAGS if flag in flags],
        "cores": psutil.cpu_count(logical=True),
        "usable_cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "gpu": _first_line("/proc/driver/nvidia/version"),
    }


def machine_key() -> str:
    """What of the machine makes its figures its own: a hash of CPU, instruction sets, usable cores and GPU."""
    told = describe_machine()
    part = {key: told[key] for key in ("cpu", "arch", "isa", "usable_cores", "gpu")}
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]


def machine_line() -> str:
    """The machine on one line, as figures name it."""
    told = describe_machine()
    return f"{told['cpu']} ({', '.join(told['isa']) or told['arch']}), {told['usable_cores']} cores"


def usable_cores() -> int:
    """Cores of the affinity mask, and no more than the cgroup's quota pays for."""
    mask = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _first_line("/sys/fs/cgroup/cpu.max")
    if quota and not quota.startswith("max"):
        used, period = quota.split()[:2]
        mask = min(mask, max(1, int(used) // int(period)))
    return mask


def _cpuinfo() -> tuple[str, set[str]]:
    model, flags = platform.processor() or platform.machine(), set[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return model, flags
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            model = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = set(value.split())
    return model, flags


def _first_line(path: str) -> str | None:
    try:
        return Path(path).read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return None
