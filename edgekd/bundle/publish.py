"""Publishing: a packed folder becomes the bundle at its place, whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from pathlib import Path

from edgekd.bundle.failure import bundle_errors
from edgekd.bundle.load import Bundle, load_bundle
from edgekd.errors import BadInput, StoreFailed
from edgekd.runtime.bundle_files import (
    MANIFEST,
    MEASUREMENTS,
    NO_CACHE,
    OPEN_FILES,
    BundleError,
    check_file,
    unlisted,
)
from edgekd.runtime.manifest import identity, read_manifest
from edgekd.runtime.measurements import locked, read_measurements
from edgekd.store.atomic import sync

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def publish(source: Path, destination: Path) -> Bundle:
    """Copy the packed bundle ``source`` to ``destination``, under a temporary name first, then renamed.

    A bundle of the same identity whose files hold stays as it is: measurements may have been added to it. Any other
    bundle at the place is replaced in one step (on file systems without that step: after the old one was renamed).

    Raises:
        BadInput: something is at the place that is no bundle, or that has files of somebody else; BadBundle where
            the source does not hold.
        StoreFailed: it cannot be written; what was at the place is still there.
    """
    destination = Path(os.path.abspath(destination))
    with bundle_errors(destination):
        parent = destination.parent
        parent.mkdir(parents=True, exist_ok=True)
        with locked(parent):
            _sweep(parent, destination.name)
            old = _existing(destination)
            same = old is not None and old == identity(source)
            if same and _holds(destination):
                return load_bundle(destination)
            place = Path(tempfile.mkdtemp(prefix=_prefix(destination.name), dir=parent))
            try:
                _copy(source, place)
                if same:  # its files were damaged; its evidence may still be good
                    _keep_measurements(destination, place)
                place.chmod(0o755)
                _sync_tree(place)
                _swap(place, destination)
                sync(parent)
            finally:
                shutil.rmtree(place, ignore_errors=True)
        return load_bundle(destination)


def check_destination(destination: Path) -> None:
    """That `publish` could write ``destination``; makes nothing.

    Raises:
        BadInput: something is at the place that is no bundle, or that has files of somebody else.
        StoreFailed: it, or the folder that it is to be made in, cannot be written.
    """
    destination = Path(os.path.abspath(destination))
    with bundle_errors(destination):
        folder = next(path for path in destination.parents if path.exists() or path.is_symlink())
        if not folder.is_dir():
            raise BadInput("is no folder", where=str(folder), remedy="choose another --out")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StoreFailed("bundles cannot be written there", where=str(folder), remedy="choose another --out")
        _existing(destination)


def _prefix(name: str) -> str:
    return f".{name}.publishing-"


def _sweep(parent: Path, name: str) -> None:
    """Remove what a killed publishing left; under the parent's lock nobody else is at it."""
    for path in parent.iterdir():
        if path.name.startswith(_prefix(name)) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _existing(place: Path) -> str | None:
    """The identity of the bundle at ``place``; None where nothing is, or an empty folder."""
    if not place.exists() and not place.is_symlink():
        return None
    if place.is_symlink() or not place.is_dir():
        raise BadInput("is in the way: it is no bundle", where=str(place), remedy="remove it, or choose another --out")
    if not any(place.iterdir()):
        return None
    try:
        strangers = unlisted(place, read_manifest(place)["files"])
    except BundleError as error:
        fault = f"{Path(error.where).name or 'its manifest'} {error.what}"
        raise BadInput(
            f"is in the way: it is not a bundle that could be replaced ({fault})",
            where=str(place),
            remedy="remove it, or choose another --out",
        ) from error
    if strangers:
        raise BadInput(
            f"the bundle that is to be replaced holds files that are not its own: {', '.join(strangers[:5])}",
            where=str(place),
            remedy="move them elsewhere, or choose another --out",
        )
    return identity(place)


def _holds(root: Path) -> bool:
    try:
        for name, row in read_manifest(root)["files"].items():
            check_file(root, name, row)
        read_measurements(root)
    except BundleError:
        return False
    return True


def _copy(source: Path, place: Path) -> None:
    """Every listed file, its hash checked after the copy, and the open ones; device/ belongs to a device."""
    manifest = read_manifest(source)
    for name, row in manifest["files"].items():
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target, follow_symlinks=False)
        check_file(place, name, row)
    for path in source.rglob(NO_CACHE):
        if path.is_file() and not path.stat().st_size:
            (place / path.relative_to(source)).touch()
    for name in (*OPEN_FILES, MANIFEST):
        if (source / name).is_file():
            shutil.copyfile(source / name, place / name, follow_symlinks=False)
    read_measurements(place)


def _keep_measurements(old: Path, place: Path) -> None:
    try:
        read_measurements(old)
    except BundleError:
        return
    if (old / MEASUREMENTS).exists():
        shutil.copyfile(old / MEASUREMENTS, place / MEASUREMENTS)


def _swap(place: Path, destination: Path) -> None:
    """Put ``place`` at ``destination``; what was there is at ``place`` afterwards."""
    if not destination.exists():
        os.rename(place, destination)
        return
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    arguments = (_AT_FDCWD, os.fsencode(place), _AT_FDCWD, os.fsencode(destination), _RENAME_EXCHANGE)
    if function is not None and function(*arguments) == 0:
        return
    code = ctypes.get_errno() if function is not None else errno.ENOSYS
    if code not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        raise OSError(code, os.strerror(code), str(destination))
    aside = Path(tempfile.mkdtemp(prefix=_prefix(destination.name), dir=destination.parent))
    os.rename(destination, aside / "old")
    try:
        os.rename(place, destination)
    except BaseException:
        os.rename(aside / "old", destination)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sync_tree(root: Path) -> None:
    for path in sorted(root.rglob("*")):
        sync(path)
    sync(root)
