"""What machine a figure comes from, and how much of it this process may use; the standard library only."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

# The instruction sets that decide how fast and how exact integer kernels are.
_FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "asimdhp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
)


@cache
def describe_machine() -> dict[str, Any]:
    """This machine as a flat, JSON-ready mapping; what cannot be read is null. Memory in MB of 10^6 bytes."""
    flags, name = _cpu()
    return {
        "cpu": name,
        "arch": platform.machine(),
        "isa": [flag for flag in _FLAGS if flag in flags],
        "cores": os.cpu_count() or 1,
        "usable_cores": usable_cpus(),
        "cpu_quota": cpu_quota(),
        "memory_mb": _memory_mb(),
        "virtual": "hypervisor" in flags,
        "kernel": f"{platform.system()} {platform.release()}",
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "board": (_read("/proc/device-tree/model") or "").rstrip("\0") or None,
        "gpu": _gpu(),
        "gpu_driver": _gpu_driver(),
    }


# Of each instruction set that a target may name, the flag that tells it; the best first.
_ISA_FLAGS = {
    "amx": "amx_int8",
    "avx512-vnni": "avx512_vnni",
    "avx-vnni": "avx_vnni",
    "avx512": "avx512bw",
    "avx2": "avx2",
    "neon-dot": "asimddp",
}
# Those of x86 that sum u8 x s8 products in 32 bits.
VNNI = ("amx", "avx512-vnni", "avx-vnni")
_VNNI_FLAGS = tuple(_ISA_FLAGS[isa] for isa in VNNI)
# The flags that tell how fast integer kernels are; a machine's list has the best of them last.
INTEGER_FLAGS = (*_VNNI_FLAGS, "asimddp", "i8mm")


def is_machine_of(target: dict[str, Any]) -> bool:
    """Whether this machine is the one that a target of a manifest means: ``arch``, ``isa`` and ``board``.

    What the target leaves open, or calls "host", every machine has; ``board`` is a pattern of the board's name.
    """
    machine = describe_machine()
    if (target.get("arch") or "host") not in ("host", machine["arch"]):
        return False
    isa = target.get("isa") or "host"
    if isa == "neon" and machine["arch"] != "aarch64":
        return False
    if isa in _ISA_FLAGS and _ISA_FLAGS[isa] not in machine["isa"]:
        return False
    pattern = target.get("board")
    return not pattern or re.search(pattern, machine["board"] or "") is not None


def saturates() -> bool:
    """Whether this CPU sums pairs of u8 x s8 products in 16 bits, which saturate: x86 that tells no VNNI."""
    machine = describe_machine()
    return machine["arch"] == "x86_64" and not any(flag in machine["isa"] for flag in _VNNI_FLAGS)


def machine_name() -> str:
    """The machine in one line, as figures name it."""
    machine = describe_machine()
    parts = [machine["board"] or machine["cpu"], f"{machine['usable_cores']} cores"]
    best = [flag for flag in machine["isa"] if flag in INTEGER_FLAGS]
    if machine["arch"] == "x86_64" and not best:
        best = ["no VNNI"]
    return ", ".join([*parts, *best[-1:], *([machine["gpu"]] if machine["gpu"] else [])])


def machine_key() -> str:
    """The key of this machine."""
    return key_of(describe_machine())


def key_of(machine: Mapping[str, Any]) -> str:
    """A digest of what decides speed: figures of another key were taken on another machine."""
    parts = {key: machine.get(key) for key in ("cpu", "arch", "isa", "cores", "usable_cores", "gpu", "gpu_driver")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def best_isa() -> str:
    """The best integer instruction set of this machine, as targets name it."""
    machine = describe_machine()
    least = "neon" if machine["arch"] == "aarch64" else "avx2"
    return next((isa for isa, flag in _ISA_FLAGS.items() if flag in machine["isa"]), least)


def usable_cpus() -> int:
    """CPUs that this process may really use at once: its affinity and its cgroups' quota, at least 1."""
    count = len(allowed_cores())
    quota = cpu_quota()
    return max(1, min(count, math.floor(quota))) if quota is not None else max(1, count)


def allowed_cores() -> list[int]:
    """The numbers of the CPUs that this process may run on."""
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return list(range(os.cpu_count() or 1))


def cpu_quota(*, proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """The smallest CPU quota of this process' cgroups (version 2 and 1) and their parents in CPUs; None without."""
    quotas = []
    for line in (_read(str(proc)) or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            folders = [root, root / "unified"]
        elif "cpu" in controllers.split(","):
            folders = [root / "cpu", root / controllers]
        else:
            continue
        for folder in folders:
            # Inside a container the path may be the host's: parents that do not exist are skipped.
            place = folder / path.lstrip("/")
            for parent in (place, *place.parents):
                quota = _quota(parent)
                if quota is not None:
                    quotas.append(quota)
                if parent == folder:
                    break
    return min(quotas, default=None)


def _quota(folder: Path) -> float | None:
    both = (_read(str(folder / "cpu.max")) or "").split()
    if not both:
        both = [_read(str(folder / f"cpu.cfs_{name}_us")) or "" for name in ("quota", "period")]
    try:
        quota, period = float(both[0]), float(both[1])
    except (ValueError, IndexError):  # "max", or no such file
        return None
    return quota / period if quota > 0 and period > 0 else None


def _cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[set[str], str]:
    """Feature flags and the name; fields that a kernel leaves out (ARM has no model name) fall back to Python's."""
    flags: set[str] = set()
    name = ""
    for line in (_read(str(cpuinfo)) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features") and not flags:
            flags = set(value.split())
        if key.strip() in ("model name", "Hardware", "CPU part") and not name:
            name = value.strip()
    return flags, name or platform.processor() or platform.machine()


def _memory_mb() -> int | None:
    for line in (_read("/proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024 // 10**6
    return None


def _gpu() -> str | None:
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in (_read(str(path)) or "").splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return None


def _gpu_driver() -> str | None:
    words = (_read("/proc/driver/nvidia/version") or "").splitlines()[:1]
    return next((word for line in words for word in line.split() if word[:1].isdigit() and "." in word), None)


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
