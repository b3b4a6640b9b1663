"""Files that a reader sees whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text under a temporary name, sync, rename: a reader sees the old file or the new one."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write bytes under a temporary name in the same folder, sync, rename, sync the folder.

    Raises:
        OSError: with the file's name; until the rename what stood under ``path`` is untouched.
    """
    with _named(path, always=True):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with _named(path), os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.rename(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Have the disk hold a file's bytes, or a folder's names, before this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with _named(path):
            os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _named(path: Path, *, always: bool = False) -> Iterator[None]:
    """write and fsync do not say which file they failed on; ``always``: what they say is a temporary name."""
    try:
        yield
    except OSError as error:
        error.filename = str(path) if always else error.filename or str(path)
        raise
