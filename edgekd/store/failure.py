"""What an OSError in the store means to the person who reads it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekd.errors import EdgekdError, StoreFailed

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EIO)


@contextmanager
def of_the_store(root: Path) -> Iterator[None]:
    """Around the store's own work: every OSError is the store's."""
    try:
        yield
    except OSError as error:
        raise _failed(root, error) from error


@contextmanager
def of_a_stage(root: Path) -> Iterator[None]:
    """Around a stage's work: only what the store's file system refuses is the store's.

    A stage may fail to read the user's files for want of permission. A library that meets a full disk may say so
    only in its text (safetensors, torch), or not at all (numpy), hence the look at what is free.
    """
    try:
        yield
    except EdgekdError:
        raise
    except Exception as error:
        if isinstance(error, OSError):
            inside = Path(str(error.filename or "")).is_relative_to(root)
            if error.errno in (*_FULL, errno.EROFS) or (error.errno in _REFUSED and inside):
                raise _failed(root, error) from error
        if os.strerror(errno.ENOSPC) in str(error) or _free(root) < 64 * 1024:
            told = f"{os.strerror(errno.ENOSPC)} ({type(error).__name__}: {error})"
            raise _failed(root, OSError(errno.ENOSPC, told)) from error
        raise


def _free(root: Path) -> int:
    try:
        return shutil.disk_usage(root).free
    except OSError:
        return 1 << 62


def _failed(root: Path, error: OSError) -> StoreFailed:
    full = error.errno in _FULL
    return StoreFailed(
        f"the store cannot be {'written' if full or error.errno == errno.EROFS else 'used'}: {error.strerror or error}",
        where=str(error.filename or root),
        remedy=("make room with `edgekd cache prune`" if full else "make it writable")
        + ", or put the store elsewhere with EDGEKD_HOME",
    )
