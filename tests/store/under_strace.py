"""The tiny pipeline in a process of its own, under strace or not, and what a store must look like afterwards."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from edgekd.store.listing import holds, read_list

SCRIPT = Path(__file__).parent / "tiny_pipeline.py"
# Every call by which the pipeline changes the disk.
CHANGES = ("rename", "renameat", "renameat2", "fsync", "fdatasync", "write", "pwrite64", "openat", "mkdir", "mkdirat")
CHANGES += ("unlink", "unlinkat", "rmdir", "chmod", "fchmodat", "utimensat", "ftruncate", "flock")


def run(root: Path, verb: str = "build", *, strace: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The tiny pipeline on the store at ``root``, in a process of its own."""
    before = ("strace", "-f", *strace) if strace else ()
    command = [*before, sys.executable, "-B", str(SCRIPT), str(root), verb]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def run_injected(root: Path, verb: str, point: tuple[str, int], what: str) -> subprocess.CompletedProcess[str]:
    """`run`, with ``signal=…`` or ``error=…`` at the system call ``point`` = (name, its number among its like)."""
    call, number = point
    inject = ("-e", f"trace={call}", "-e", f"inject={call}:{what}:when={number}")
    return run(root, verb, strace=("-o", "/dev/null", *inject))


def calls_on(root: Path, verb: str, log: Path) -> list[tuple[str, int]]:
    """Every (system call, its number among its like) by which an undisturbed run touches ``root``."""
    done = run(root, verb, strace=("-y", "-o", str(log), "-e", "trace=" + ",".join(CHANGES)))
    assert done.returncode == 0, done.stderr
    counts: Counter[str] = Counter()
    found = []
    for line in log.read_text().splitlines():
        match = re.match(r"\d+ +(\w+)\((.*)", line)
        if match is None:
            continue
        counts[match[1]] += 1
        if str(root) in match[2]:
            found.append((match[1], counts[match[1]]))
    return found


def contents(root: Path) -> dict[str, bytes]:
    """Every file of the store's artifacts."""
    folder = root / "artifacts"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_nothing_half_written(root: Path) -> None:
    """Every folder that a reader can see is complete."""
    for folder in (root / "artifacts").glob("*"):
        listed = read_list(folder)
        assert listed is not None, f"{folder} is visible without its list"
        assert holds(folder, listed), f"{folder} is visible, but its files do not hold"


def assert_clean(root: Path) -> None:
    """Nothing is left but artifacts, scratch and empty lock files."""
    assert list((root / "building").iterdir()) == []
    assert not (root / "quarantine").exists(), "a kill made a corrupt artifact"
    assert all(path.stat().st_size == 0 for path in (root / "locks").iterdir())


def strace_works() -> bool:
    """Whether strace is here and may trace and inject."""
    if shutil.which("strace") is None:
        return False
    inject = ["strace", "-f", "-o", "/dev/null", "-e", "inject=fsync:error=ENOSPC", "true"]
    return subprocess.run(inject, capture_output=True).returncode == 0
