"""What data a build is made from, as a hash; without torch for built-in sets and folders, so that a repeat is quick."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from edgekd.errors import BadData, missing_package
from edgekd.recipe import DataConfig


def fingerprint(config: DataConfig, *, seed: int) -> str:
    """SHA-256 over the data's files (their names and contents), or over every sample of a factory's data.

    Raises:
        BadData: a folder that is not there.
        Missing: the package that holds the data is not installed.
    """
    if config.folder is not None:
        root = Path(config.folder)
        if not root.is_dir():
            raise BadData("there is no such folder", where=config.folder, remedy="check data.folder")
        return _files(sorted(path for path in root.rglob("*") if path.is_file()), root)
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
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"{path.relative_to(root).as_posix()}\0{digest}\n".encode())
    return whole.hexdigest()
