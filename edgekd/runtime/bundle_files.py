"""The files of a bundle: safe paths, hashes, and what may lie beside the files that the manifest lists."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST, MEASUREMENTS, CHOICE = "manifest.json", "measurements.json", "device/choice.json"
# Not listed, since they change after packing: evidence, its report, and the folder that `finalize` fills on a device.
OPEN_FILES, OPEN_FOLDER = (MEASUREMENTS, "report.html"), "device"
# Python writes compiled files to a folder of this name. An empty *file* of the name keeps it from doing so, which
# leaves a bundle as it is when it runs, and no place for a planted .pyc.
NO_CACHE = "__pycache__"


class BundleError(Exception):
    """A bundle that does not hold what it promises: ``what`` is wrong, ``where`` (file and key), the ``remedy``."""

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        head = f"{where}: {what}" if where else what
        super().__init__(f"{head}\n  {remedy}" if remedy else head)


def path_fault(name: Any) -> str:
    """Why ``name`` cannot be a file of a bundle; empty when it can: a plain relative POSIX path."""
    if not isinstance(name, str) or not name:
        return "is not a path"
    if any(ord(character) < 32 for character in name) or "\\" in name or ":" in name:
        return "has characters that paths in a bundle do not have"
    if name.startswith("/"):
        return "is absolute"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "is not a plain path inside the bundle"
    return ""


def locate(root: Path, name: str) -> Path:
    """The regular file ``name`` of the bundle at ``root``.

    Raises:
        BundleError: a path that leaves the bundle or passes through a symbolic link, or no such file.
    """
    fault = path_fault(name)
    if fault:
        raise BundleError(f"the path {name!r} {fault}", str(root))
    place = root
    for part in PurePosixPath(name).parts:
        place = place / part
        if place.is_symlink():
            raise BundleError("is a symbolic link; a bundle has none", str(place))
    if not place.exists():
        raise BundleError("is missing", str(place))
    if not place.is_file():
        raise BundleError("is not a file", str(place))
    return place


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def check_file(root: Path, name: str, row: dict[str, Any]) -> Path:
    """The file ``name``, whose size and hash are those of its ``row`` in the manifest.

    Raises:
        BundleError: it is missing, cannot be read, or is another.
    """
    path = locate(root, name)
    try:
        size = path.stat().st_size
        if size != row["size"]:
            raise BundleError(f"has {size} bytes, the manifest says {row['size']}", str(path))
        if digest(path) != row["sha256"]:
            raise BundleError("is not the file that the manifest lists: its SHA-256 differs", str(path))
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}", str(path)) from error
    return path


def unlisted(root: Path, listed: dict[str, Any]) -> list[str]:
    """Everything under ``root`` that is neither listed nor open, by name; symbolic links always count."""
    found: list[str] = []

    def refuse(error: OSError) -> None:
        found.append(Path(error.filename).relative_to(root).as_posix())

    for folder, folders, files in os.walk(root, onerror=refuse):
        base = Path(folder)
        for name in sorted([*folders, *files]):
            path = base / name
            relative = path.relative_to(root).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            if relative == MANIFEST or relative in listed or relative in OPEN_FILES:
                fine = stat.S_ISREG(mode)
            else:
                fine = name == NO_CACHE and stat.S_ISREG(mode) and path.lstat().st_size == 0
            if not fine:
                found.append(relative)
        if base == root and OPEN_FOLDER in folders and not (root / OPEN_FOLDER).is_symlink():
            folders.remove(OPEN_FOLDER)
    return sorted(found)


def read_json(path: Path) -> Any:
    """A JSON file; a repeated key and NaN, which readers understand differently, are refused.

    Raises:
        BundleError: it cannot be read or is not JSON.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}", str(path)) from error
    try:
        return json.loads(data, object_pairs_hook=_pairs, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"is not JSON: {error}", str(path)) from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON under a temporary name, sync and rename: a reader sees the old file or the new one."""
    write_atomically(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def write_atomically(path: Path, data: bytes) -> None:
    """Write bytes under a temporary name beside ``path``, sync and rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON value")
