"""Which files an image folder's data are made of: what is read is what is fingerprinted; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from edgekd.errors import BadData

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class ImageFiles(NamedTuple):
    """``classes`` by name, and of each split the user has made (at least train) rows of (file, index of its class)."""

    classes: list[str]
    rows: dict[str, list[tuple[Path, int]]]


def image_files(root: Path) -> ImageFiles:
    """Images of ``root``: a class per subfolder, or train/ of such, with test/ and val/ where they are there.

    Raises:
        BadData: missing or empty folder, or test classes that training lacks.
    """
    if not root.is_dir():
        raise BadData("there is no such folder", where=str(root), remedy="check data.folder")
    split = (root / "train").is_dir()
    base = root / "train" if split else root
    classes = [place.name for place in _class_folders(base)]
    if not classes:
        raise BadData("has no class folders", where=str(base), remedy="make one subfolder of images for each class")
    rows = {"train": _rows(base, classes)}
    for name in ("test", "val"):
        if split and (root / name).is_dir():
            rows[name] = _rows(root / name, classes)
    return ImageFiles(classes, rows)


def _class_folders(base: Path) -> list[Path]:
    return sorted(path for path in base.iterdir() if path.is_dir() and not path.name.startswith("."))


def _rows(base: Path, classes: list[str]) -> list[tuple[Path, int]]:
    index = {name: i for i, name in enumerate(classes)}
    rows = []
    for place in _class_folders(base):
        if place.name not in index:
            raise BadData(
                f"the class {place.name!r} is not in the training folder", where=str(place), remedy="add or remove it"
            )
        images = sorted(path for path in place.rglob("*") if path.suffix.lower() in ENDINGS and not path.is_dir())
        if not images:
            raise BadData(
                "has no images", where=str(place), remedy=f"put images there ({', '.join(ENDINGS)}), or remove it"
            )
        rows += [(path, index[place.name]) for path in images]
    if not rows:
        raise BadData("has no images", where=str(base), remedy="make one subfolder of images for each class")
    return rows
