"""What the store holds, and making room in it without taking what a running build needs."""

from __future__ import annotations

import math
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from edgekd.store.listing import LIST, read_list

UNFINISHED = "unfinished"
# A file's times come from the kernel's coarse clock, which may be so many seconds behind the one that names sessions.
COARSE = 0.1


@dataclass(frozen=True)
class Entry:
    """One thing that the store keeps; ``last_used`` is UTC in ISO 8601.

    ``kind`` is the artifact's, or "unfinished" for the checkpoints and the like of a build that was stopped.
    """

    kind: str
    key: str
    size_bytes: int
    last_used: str

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)


class Row(NamedTuple):
    """An entry, where it lies, and when it was last used (nanoseconds since 1970)."""

    entry: Entry
    path: Path
    used_ns: int


def rows(root: Path) -> list[Row]:
    """Artifacts and unfinished builds, the longest unused first."""
    found = []
    for part, look in (("artifacts", _artifact), ("scratch", _unfinished)):
        for path in (root / part).glob("*"):
            try:
                row = look(path)
            except FileNotFoundError:
                continue  # removed while we look
            if row is not None:
                found.append(row)
    return sorted(found, key=lambda row: row.used_ns)


def prune(root: Path, *, older_than_seconds: float, max_bytes: int | None) -> list[Entry]:
    """See `edgekd.store.Store.prune`."""
    now, found = time.time(), rows(root)
    # After the look: what a session that begins later uses shows by its time.
    held_since = _oldest_session(root)
    total = sum(row.entry.size_bytes for row in found)
    removed = []
    for row in found:
        used = row.used_ns / 1e9
        too_much = max_bytes is not None and total > max_bytes
        if now - used < older_than_seconds and not too_much:
            continue
        # A session may be about to go on from an unfinished build, however old.
        if used >= held_since - COARSE or (row.entry.kind == UNFINISHED and held_since < math.inf):
            continue
        if _remove(root, row):
            total -= row.entry.size_bytes
            removed.append(row.entry)
    _sweep(root)
    return removed


def _artifact(path: Path) -> Row | None:
    listed = read_list(path)
    if listed is None:
        return None
    size = sum(file["size"] for file in listed["files"].values())
    return _row(listed["kind"], path, size, (path / LIST).stat().st_mtime_ns)


def _unfinished(path: Path) -> Row:
    stats = [one.stat() for one in (path, *path.rglob("*"))]
    return _row(UNFINISHED, path, sum(s.st_size for s in stats[1:]), max(s.st_mtime_ns for s in stats))


def _row(kind: str, path: Path, size: int, used_ns: int) -> Row:
    used = datetime.fromtimestamp(used_ns / 1e9, UTC).isoformat()
    return Row(Entry(kind, path.name, size, used), path, used_ns)


def _remove(root: Path, row: Row) -> bool:
    with _unless_locked(root, row.entry.key) as free:
        look = _unfinished if row.entry.kind == UNFINISHED else _artifact
        try:
            now = look(row.path) if free else None
            if now is None or now.used_ns != row.used_ns:
                return False  # being built, or used since it was listed
            gone = root / "building" / f"removed-{uuid.uuid4().hex}"
            gone.parent.mkdir(exist_ok=True)
            os.rename(row.path, gone)
        except FileNotFoundError:
            return False
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _sweep(root: Path) -> None:
    """Take away what nobody will ask for again: corrupt artifacts, half-written and half-removed folders."""
    for folder in (root / "quarantine").glob("*"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (root / "building").glob("*"):
        with _unless_locked(root, folder.name) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _unless_locked(root: Path, key: str) -> Iterator[bool]:
    """Holds the key's lock and gives True, or gives False when a build holds it."""
    if key.startswith("removed-"):
        yield True
        return
    (root / "locks").mkdir(exist_ok=True)
    lock = FileLock(root / "locks" / f"{key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _oldest_session(root: Path) -> float:
    """When the oldest running session began, in seconds since 1970; infinity when none runs."""
    oldest = math.inf
    for path in (root / "sessions").glob("*.lock"):
        try:
            with FileLock(path, timeout=0):
                path.unlink(missing_ok=True)  # its process is gone
        except Timeout:
            oldest = min(oldest, int(path.name.partition("-")[0]) / 1e9)
        except FileNotFoundError:
            continue
    return oldest
