"""The store: look an artifact up, or build it once."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from edgekd.store import prune
from edgekd.store.atomic import sync
from edgekd.store.failure import of_a_stage, of_the_store
from edgekd.store.listing import LIST, holds, read_list, write_list

Make = Callable[[Path, Path], dict[str, Any]]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Artifact:
    """One complete folder of the store: what kind, where, under which key, and the JSON meta its maker returned."""

    kind: str
    path: Path
    key: str
    meta: dict[str, Any]


def _quiet(_: str) -> None:
    return


class Store:
    """The store under ``root``: by default ``$EDGEKD_HOME``, else the user's cache folder."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or _default_root()).expanduser().absolute()

    def get(self, key: str, report: Report = _quiet) -> Artifact | None:
        """The artifact under ``key`` when it is complete and its hashes hold; a corrupt one is set aside.

        Raises:
            StoreFailed: the store cannot be read or written.
        """
        if not os.path.lexists(self.root / "artifacts" / key):
            return None
        # Under the lock, since `prune` must not take it between this look and its mark of use.
        with self._lock(key, report):
            return self._read(key, report)

    def build(self, key: str, kind: str, make: Make, report: Report = _quiet) -> Artifact:
        """The artifact under ``key``, made by ``make(out, scratch)`` unless it is there; one builder at a time.

        ``scratch`` is a folder that survives a killed build and is handed to the next one. Raises:
            StoreFailed: the store cannot be written; nothing half-written is left.
        """
        with self._lock(key, report):
            found = self._read(key, report)
            if found is not None:
                return found
            folder, out, scratch = (self.root / part / key for part in ("artifacts", "building", "scratch"))
            try:
                with of_the_store(self.root):
                    # Under the key's lock: what lies here was left by a build that was killed.
                    shutil.rmtree(out, ignore_errors=True)
                    for path in (folder.parent, out.parent, scratch):
                        path.mkdir(parents=True, exist_ok=True)
                    out.mkdir()
                with of_a_stage(self.root):
                    meta = make(out, scratch)
                with of_the_store(self.root):
                    meta = write_list(out, kind, meta)
                    os.rename(out, folder)
                    sync(folder.parent)
            except BaseException:
                shutil.rmtree(out, ignore_errors=True)
                raise
            shutil.rmtree(scratch, ignore_errors=True)
        return Artifact(kind, folder, key, meta)

    @contextmanager
    def session(self) -> Iterator[None]:
        """While this is held, `prune` takes nothing that was used since it began."""
        with of_the_store(self.root):
            folder = self.root / "sessions"
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                # The beginning stands in the name: a lock file's times are the locking library's.
                lock = FileLock(folder / f"{time.time_ns()}-{uuid.uuid4().hex}.lock")
                lock.acquire()
                # Before it was locked, a `prune` may have taken it for a dead session's and removed it.
                if os.path.exists(lock.lock_file):
                    break
                lock.release()
        try:
            yield
        finally:
            # A session that leaves its file behind holds nothing: `prune` finds it unlocked.
            with suppress(OSError):
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def ls(self) -> list[prune.Entry]:
        """All complete artifacts and what unfinished builds left for the next one, the longest unused first."""
        with of_the_store(self.root):
            return [row.entry for row in prune.rows(self.root)]

    def prune(self, *, older_than_seconds: float, max_bytes: int | None = None) -> list[prune.Entry]:
        """Remove what was unused for so long, then the longest unused until ``max_bytes`` is met.

        Nothing that a running build may hold is taken: neither what it builds nor what was used since it began.
        """
        with of_the_store(self.root):
            return prune.prune(self.root, older_than_seconds=older_than_seconds, max_bytes=max_bytes)

    def _read(self, key: str, report: Report) -> Artifact | None:
        """`get` for one who holds the key's lock."""
        folder = self.root / "artifacts" / key
        with of_the_store(self.root):
            if not os.path.lexists(folder):
                return None
            listed = read_list(folder)
            if listed is not None and holds(folder, listed):
                os.utime(folder / LIST)
                return Artifact(listed["kind"], folder, key, listed["meta"])
            aside = self.root / "quarantine" / f"{key}-{uuid.uuid4().hex[:8]}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.rename(folder, aside)
        report(f"the store's {key[:12]} was corrupt: set aside in {aside}, built again")
        return None

    @contextmanager
    def _lock(self, key: str, report: Report) -> Iterator[None]:
        with of_the_store(self.root):
            folder = self.root / "locks"
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / f"{key}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                report("another build makes this stage; waiting for it")
                lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _default_root() -> Path:
    home = os.environ.get("EDGEKD_HOME")
    if home:
        return Path(home)
    import platformdirs

    return Path(platformdirs.user_cache_dir("edgekd", appauthor=False))
