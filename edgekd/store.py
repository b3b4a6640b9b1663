"""Key -> folder: content-addressed, atomic, locked, prunable.

An artifact is built in a temporary folder on the same file system; the list of its files and hashes is written last,
everything is synced, then the folder is renamed into place and its parent synced. A reader trusts only a folder whose
list is there and holds. Lock files hold no state: the kernel's locks (filelock) vanish with their process.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from edgekd.errors import StoreFailed

LIST = ".complete.json"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

Make = Callable[[Path, Path], dict[str, Any]]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Artifact:
    """One complete folder of the store: what kind, where, under which key, and the JSON meta its maker returned."""

    kind: str
    path: Path
    key: str
    meta: dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One row of `Store.ls`; ``last_used`` is UTC in ISO 8601."""

    kind: str
    key: str
    size_bytes: int
    last_used: str

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)


def _quiet(_: str) -> None:
    return


class Store:
    """The store under ``root``: by default ``$EDGEKD_HOME``, else the user's cache folder."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or _default_root()).absolute()

    def get(self, key: str, report: Report = _quiet) -> Artifact | None:
        """The artifact under ``key`` when it is complete and its hashes hold; a corrupt one is set aside."""
        folder = self.root / "artifacts" / key
        if not folder.is_dir():
            return None
        listed = _read_list(folder)
        if listed is None or not _holds(folder, listed["files"]):
            self._set_aside(folder, report)
            return None
        with _telling_full_disks(self.root):
            os.utime(folder / LIST)
        return Artifact(listed["kind"], folder, key, listed["meta"])

    def build(self, key: str, kind: str, make: Make, report: Report = _quiet) -> Artifact:
        """The artifact under ``key``, made by ``make(out, scratch)`` unless it is there; one builder at a time.

        ``scratch`` is a folder that survives a killed build and is handed to the next one. Raises:
            StoreFailed: the store cannot be written; nothing half-written is left.
        """
        with _telling_full_disks(self.root):
            for part in ("artifacts", "building", "scratch", "locks"):
                (self.root / part).mkdir(parents=True, exist_ok=True)
            with self._lock(key, report):
                found = self.get(key, report)
                if found is not None:
                    return found
                scratch = self.root / "scratch" / key
                scratch.mkdir(exist_ok=True)
                out = self.root / "building" / key
                # Under the key's lock: what lies here was left by a build that was killed.
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                try:
                    meta = make(out, scratch)
                    self._complete(out, kind, meta)
                    os.rename(out, self.root / "artifacts" / key)
                    _sync(self.root / "artifacts")
                except BaseException:
                    shutil.rmtree(out, ignore_errors=True)
                    raise
                shutil.rmtree(scratch, ignore_errors=True)
        return Artifact(kind, self.root / "artifacts" / key, key, meta)

    @contextmanager
    def session(self) -> Iterator[None]:
        """While this is held, `prune` takes nothing that was used since it began."""
        with _telling_full_disks(self.root):
            folder = self.root / "sessions"
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / f"{uuid.uuid4().hex}.lock")
            lock.acquire()
        try:
            yield
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def ls(self) -> list[Entry]:
        """All complete artifacts, the longest unused first."""
        found = []
        for folder in (self.root / "artifacts").glob("*"):
            listed = _read_list(folder)
            if listed is not None:
                used = (folder / LIST).stat().st_mtime
                size = sum(row["size"] for row in listed["files"].values())
                found.append((used, Entry(listed["kind"], folder.name, size, _iso(used))))
        return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]

    def prune(self, *, older_than_seconds: float, max_bytes: int | None = None) -> list[Entry]:
        """Remove what was unused for so long, then the longest unused until ``max_bytes`` is met.

        Nothing that a running build may hold is taken: neither what it builds nor what was used since it began.
        """
        now, held_since = time.time(), self._oldest_session()
        entries = self.ls()
        total = sum(entry.size_bytes for entry in entries)
        removed = []
        for entry in entries:
            used = datetime.fromisoformat(entry.last_used).timestamp()
            too_much = max_bytes is not None and total > max_bytes
            if (now - used < older_than_seconds and not too_much) or used >= held_since:
                continue
            if self._remove(entry.key, used):
                total -= entry.size_bytes
                removed.append(entry)
        for folder in (self.root / "quarantine").glob("*"):
            shutil.rmtree(folder, ignore_errors=True)
        return removed

    def _remove(self, key: str, used: float) -> bool:
        folder = self.root / "artifacts" / key
        lock = FileLock(self.root / "locks" / f"{key}.lock", timeout=0)
        try:
            with lock:
                # Used since it was listed: leave it.
                if abs((folder / LIST).stat().st_mtime - used) > 1e-3:
                    return False
                gone = self.root / "building" / f"removed-{uuid.uuid4().hex}"
                gone.parent.mkdir(exist_ok=True)
                os.rename(folder, gone)
        except (Timeout, FileNotFoundError):
            return False
        shutil.rmtree(gone, ignore_errors=True)
        return True

    def _oldest_session(self) -> float:
        oldest = float("inf")
        for path in (self.root / "sessions").glob("*.lock"):
            try:
                began = path.stat().st_mtime
                with FileLock(path, timeout=0):
                    path.unlink(missing_ok=True)  # its process is gone
            except Timeout:
                oldest = min(oldest, began)
            except FileNotFoundError:
                continue
        return oldest

    def _set_aside(self, folder: Path, report: Report) -> None:
        with _telling_full_disks(self.root):
            aside = self.root / "quarantine" / f"{folder.name}-{uuid.uuid4().hex[:8]}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.rename(folder, aside)
            except FileNotFoundError:
                return
        report(f"the store's {folder.name[:12]} was corrupt: set aside in {aside}, built again")

    @contextmanager
    def _lock(self, key: str, report: Report) -> Iterator[None]:
        lock = FileLock(self.root / "locks" / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            report("another build makes this stage; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @staticmethod
    def _complete(out: Path, kind: str, meta: dict[str, Any]) -> None:
        files = {}
        for path in sorted(out.rglob("*")):
            if path.is_file():
                files[path.relative_to(out).as_posix()] = {"size": path.stat().st_size, "sha256": _digest(path)}
            _sync(path)
        text = json.dumps({"kind": kind, "meta": meta, "files": files}, indent=1)
        write_text_atomic(out / LIST, text)


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text under a temporary name, sync, rename: a reader sees the old file or the new one."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write bytes under a temporary name in the same folder, sync, rename, sync the folder."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.rename(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _default_root() -> Path:
    home = os.environ.get("EDGEKD_HOME")
    if home:
        return Path(home)
    import platformdirs

    return Path(platformdirs.user_cache_dir("edgekd", appauthor=False))


def _read_list(folder: Path) -> dict[str, Any] | None:
    try:
        value = json.loads((folder / LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and value.keys() >= {"kind", "meta", "files"} else None


def _holds(folder: Path, files: dict[str, Any]) -> bool:
    try:
        return all(
            (folder / name).stat().st_size == row["size"] and _digest(folder / name) == row["sha256"]
            for name, row in files.items()
        )
    except OSError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


@contextmanager
def _telling_full_disks(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # A stage may fail to read the user's files for want of permission; only the store's own are told here.
        ours = error.errno in (errno.EACCES, errno.EPERM) and str(error.filename or "").startswith(str(root))
        if error.errno not in NO_ROOM and not ours:
            raise
        raise StoreFailed(
            f"the store cannot be written: {error.strerror}",
            where=str(error.filename or root),
            remedy="make room with `edgekd cache prune`, or put the store elsewhere with EDGEKD_HOME",
        ) from error
