"""The list of an artifact's files: written last, and the reason why a reader may trust the folder."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

from edgekd.store.atomic import sync, write_bytes_atomic

# First line: SHA-256 of the rest. The rest: JSON with kind, meta, and size and SHA-256 of each file.
LIST = ".complete"

# What a damaged or half-removed folder answers. Anything else (no permission, too many open files) says nothing about
# the artifact, and must not cost it.
_DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)


def write_list(folder: Path, kind: str, meta: dict[str, Any]) -> dict[str, Any]:
    """Sync every file and folder, then write the list; returns ``meta`` as a reader will see it."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": _digest(path)}
        sync(path)
    text = json.dumps({"kind": kind, "meta": meta, "files": files}, indent=1).encode()
    write_bytes_atomic(folder / LIST, hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
    return json.loads(text)["meta"]


def read_list(folder: Path) -> dict[str, Any] | None:
    """What `write_list` wrote; None when it is missing or damaged."""
    try:
        data = (folder / LIST).read_bytes()
    except OSError as error:
        if error.errno in _DAMAGE:
            return None
        raise
    digest, _, text = data.partition(b"\n")
    return json.loads(text) if digest == hashlib.sha256(text).hexdigest().encode() else None


def holds(folder: Path, listed: dict[str, Any]) -> bool:
    """Whether every listed file is there with its size and hash."""
    try:
        return all(
            (folder / name).stat().st_size == row["size"] and _digest(folder / name) == row["sha256"]
            for name, row in listed["files"].items()
        )
    except OSError as error:
        if error.errno in _DAMAGE:
            return False
        raise


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
