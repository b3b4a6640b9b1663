"""Finding measuring processes that still run."""

from __future__ import annotations

import psutil

WORKER = "edgekd_runtime.worker"


def workers_of(pid: int) -> list[psutil.Process]:
    """Measuring processes below a process that still run; a zombie that nobody reaped is dead."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE and WORKER in " ".join(child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found
