"""measurements.json: evidence, appended to by whoever measured; a reader sees the old file or the new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .bundle_files import MEASUREMENTS, BundleError, read_json, write_json
from .machine import describe_machine, is_machine_of


def read_measurements(root: Path) -> dict[str, Any]:
    """``{"schema": 1, "entries": [...]}``, the newest last; no entries where there is no file.

    Raises:
        BundleError: it is not readable, or not in that form.
    """
    path = root / MEASUREMENTS
    if path.is_symlink():
        raise BundleError("is a symbolic link; a bundle has none", str(path))
    if not path.exists():
        return {"schema": 1, "entries": []}
    value = read_json(path)
    entries = value.get("entries") if isinstance(value, dict) else None
    if not isinstance(entries, list) or value.get("schema") != 1 or not all(isinstance(one, dict) for one in entries):
        raise BundleError("is not a list of measurements in schema 1", str(path))
    return dict(value)


def append_entry(root: Path, entry: dict[str, Any]) -> None:
    """Add an entry, atomically; two that append at once both stay.

    Raises:
        BundleError: the file that is there cannot be read: it is left as it is.
        OSError: it cannot be written.
    """
    with locked(root):
        value = read_measurements(root)
        value["entries"] = [*value["entries"], entry]
        write_json(root / MEASUREMENTS, value)


def new_entry(manifest: dict[str, Any], source: str) -> dict[str, Any]:
    """The head of an entry made now, here, by ``source``; the machine tells whether this may be the target."""
    return {
        "source": source,
        "date": now(),
        "machine": describe_machine(),
        "target": manifest["target"]["name"],
        "on_target": is_machine_of(manifest["target"]),
        "not_measured": None,
    }


def now() -> str:
    """This moment, UTC in ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")  # noqa: UP017 (datetime.UTC is newer than 3.10)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the kernel's lock on a folder, which vanishes with its process and leaves no file."""
    import fcntl

    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
