"""What data a build is made from, as a hash; without torch for built-in sets and folders, so that a repeat is quick."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from edgekd.data.image_files import image_files
from edgekd.errors import BadData, missing_package
from edgekd.recipe import DataConfig


def fingerprint(config: DataConfig, *, seed: int) -> str:
    """SHA-256 over the data's files (their names and contents), or over every sample of a factory's data.

    Raises:
        BadData: a folder that is not there or holds no classes of images, or a file that cannot be read.
        Missing: the package that holds the data is not installed.
    """
    if config.folder is not None:
        root = Path(config.folder)
        return _files([path for rows in image_files(root).rows.values() for path, _ in rows], root)
    if config.factory is not None:
        from edgekd.data.load import load_data

        return load_data(config, seed=seed).digest()
    if config.name == "digits":
        spec = importlib.util.find_spec("sklearn")
        if spec is None or spec.origin is None:
            raise missing_package("scikit-learn, which holds the digits", "build")
        folder = Path(spec.origin).parent / "datasets" / "data"
        return _files([folder / "digits.csv.gz"], folder)
    from edgekd.data.idx import idx_files

    paths = idx_files(config.path)
    # Not downloaded yet: torchvision checks what it downloads against fixed hashes.
    return _files(paths, paths[0].parent) if paths else "torchvision:FashionMNIST"


def _files(paths: list[Path], root: Path) -> str:
    whole = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise BadData(
                f"cannot be read: {error.strerror or error}", where=str(path), remedy="remove or mend it"
            ) from error
        whole.update(f"{path.relative_to(root).as_posix()}\0{digest}\n".encode())
    return whole.hexdigest()
