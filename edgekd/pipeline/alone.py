"""One measurement at a time on a machine: two that time at once would disturb each other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from edgekd.stage import Progress


@contextmanager
def measuring_alone(progress: Progress) -> Iterator[None]:
    """Hold this user's measuring lock; the kernel gives it back when the process ends."""
    # By number: in a container the user may have no name.
    lock = FileLock(Path(tempfile.gettempdir()) / f"edgekd-measuring-{os.getuid()}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.log("another build or bench is measuring; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
