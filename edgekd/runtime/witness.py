"""What else happened while a block was timed: counters that tell a reader whether to trust a figure, never a verdict.

Sources: getrusage(2), proc(5) on /proc/stat, Documentation/accounting/psi.rst, perf_event_open(2), and the kernel's
sysfs documents of cpufreq and thermal_throttle. What a machine does not tell is None.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Counters = dict[str, "int | None"]

_CPUS = Path("/sys/devices/system/cpu")
# perf_event_open: its number, PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS, PERF_FLAG_FD_CLOEXEC, and of the
# attribute's bits inherit, exclude_kernel and exclude_hv.
_PERF_OPEN = {"x86_64": 298, "aarch64": 241}
_HARDWARE, _INSTRUCTIONS, _CLOEXEC, _BITS = 0, 1, 8, 1 << 1 | 1 << 5 | 1 << 6


@dataclass(frozen=True)
class Witnesses:
    """One process' part of a pair, over all of its timed blocks.

    ``cpu_share``: CPU time of all its threads over wall time (1 thread that was never interrupted: 1);
    ``involuntary_switches`` a second: how often another process took its CPU; ``steal_share``: of all CPUs' time, what
    the hypervisor gave to other guests; ``pressure_share``: of the wall time, while some process waited for a CPU;
    ``mhz``: frequency of the CPU it ran on, right after its blocks; ``throttled``: times a core slowed down for heat;
    ``instructions``: user-space instructions a run.
    """

    cpu_share: float | None = None
    involuntary_switches: float | None = None
    steal_share: float | None = None
    pressure_share: float | None = None
    mhz: float | None = None
    throttled: int | None = None
    instructions: float | None = None

    @classmethod
    def of(cls, blocks: Sequence[Mapping[str, Any]]) -> Witnesses:
        """The witnesses of blocks, each of them the `Watch`'s differences with its number of ``runs``."""

        def total(key: str) -> int | None:
            found = [block.get(key) for block in blocks]
            return None if not found or None in found else sum(found)  # type: ignore[arg-type]

        def share(part: str, whole: str, factor: float = 1.0) -> float | None:
            one, of = total(part), total(whole)
            return factor * one / of if one is not None and of else None

        return cls(
            cpu_share=share("cpu_ns", "process_ns"),
            involuntary_switches=share("switches", "process_ns", 1e9),
            steal_share=share("steal_ticks", "ticks"),
            pressure_share=share("pressure_us", "machine_ns", 1e3),
            mhz=share("khz", "blocks", 1e-3),
            throttled=total("throttles"),
            instructions=share("instructions", "runs"),
        )

    def to_json(self) -> dict[str, float | None]:
        """A JSON-ready mapping."""
        return asdict(self)


class Watch:
    """Counters of this process and its machine; make it before the threads that are to be counted."""

    def __init__(self) -> None:
        self._instructions = open_counter(_HARDWARE, _INSTRUCTIONS)
        self._throttles = list(_CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))

    def process(self) -> Counters:
        """Counters of all threads of this process, in a few microseconds."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "process_ns": time.perf_counter_ns(),
            "cpu_ns": time.process_time_ns(),
            "switches": usage.ru_nivcsw,
            "instructions": read_counter(self._instructions),
        }

    def machine(self) -> Counters:
        """Counters of the machine, which take a tenth of a millisecond to read."""
        steal, ticks = _steal(_read("/proc/stat"))
        return {
            "machine_ns": time.perf_counter_ns(),
            "steal_ticks": steal,
            "ticks": ticks,
            "pressure_us": _pressure(_read("/proc/pressure/cpu")),
            "throttles": _sum(self._throttles),
        }


def difference(before: Counters, after: Counters) -> Counters:
    """What was counted between two readings."""
    pairs = {key: (old, after[key]) for key, old in before.items()}
    return {key: None if old is None or new is None else new - old for key, (old, new) in pairs.items()}


def own_khz() -> int | None:
    """The frequency, now, of the CPU that this process ran on last."""
    try:
        # Field 39; the second one, in parentheses, may hold anything.
        cpu = int((_read("/proc/self/stat") or "").rpartition(")")[2].split()[36])
        return int(_read(str(_CPUS / f"cpu{cpu}/cpufreq/scaling_cur_freq")) or "")
    except (ValueError, IndexError):
        return None


def open_counter(kind: int, config: int) -> int | None:
    """A file descriptor that counts an event of this process and of threads made from now on; None where refused."""
    number = _PERF_OPEN.get(platform.machine())
    if number is None:
        return None
    # struct perf_event_attr, version 0: type, size, config, period, sample type, read format, bits, three unused.
    attribute = struct.pack("=IIQQQQQIIQ", kind, 64, config, 0, 0, 0, _BITS, 0, 0, 0)
    try:
        found = ctypes.CDLL(None, use_errno=True).syscall(number, attribute, 0, -1, -1, _CLOEXEC)
    except (OSError, AttributeError):
        return None
    return found if found >= 0 else None


def read_counter(descriptor: int | None) -> int | None:
    """What was counted so far; None where there is no counter, or the CPU had none free."""
    if descriptor is None:
        return None
    try:
        return int(struct.unpack("=Q", os.read(descriptor, 8))[0]) or None
    except (OSError, struct.error):
        return None


def _steal(text: str | None) -> tuple[int | None, int | None]:
    """Ticks stolen from all CPUs, and all of their ticks (guests' are part of user's)."""
    try:
        ticks = [int(word) for word in (text or "").splitlines()[0].split()[1:9]]
        return ticks[7], sum(ticks)
    except (IndexError, ValueError):
        return None, None


def _pressure(text: str | None) -> int | None:
    """Microseconds in which some task waited for a CPU."""
    for line in (text or "").splitlines():
        if line.startswith("some "):
            return int(line.rpartition("total=")[2])
    return None


def _sum(paths: Sequence[Path]) -> int | None:
    """The sum of files of one number each; None where one cannot be read, or there is none."""
    try:
        return sum(int(_read(str(path)) or "") for path in paths) if paths else None
    except ValueError:
        return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError):
        return None
