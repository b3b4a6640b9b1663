"""Files in IDX form (yann.lecun.com/exdb/mnist), as Fashion-MNIST comes; numpy only."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

from edgekd.errors import BadData

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx_files(folder: str | None) -> list[Path] | None:
    """The four files, plain or gzipped, in ``folder`` or Debian's place; None when they are not there.

    Raises:
        BadData: a folder was named and lacks one of them.
    """
    place = Path(folder) if folder else DEBIAN
    found = []
    for name in FILES:
        path = next((p for p in (place / name, place / f"{name}.gz") if p.is_file()), None)
        if path is None:
            if folder:
                raise BadData(
                    f"there is no {name} (or {name}.gz)", where=folder, remedy="give the folder of the IDX files"
                )
            return None
        found.append(path)
    return found


def read_idx(path: Path) -> np.ndarray:
    """A file of unsigned bytes in IDX form (yann.lecun.com/exdb/mnist), gzipped or plain.

    Raises:
        BadData: damaged, or not IDX.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, dimensions = struct.unpack(">HBB", data[:4])
        shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
        if zero or kind != 8:
            raise ValueError("no IDX file of unsigned bytes")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, struct.error, ValueError) as error:
        raise BadData(f"cannot be read as IDX: {error}", where=str(path), remedy="fetch the file again") from None
