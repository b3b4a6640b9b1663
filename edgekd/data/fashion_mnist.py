"""Fashion-MNIST (Xiao et al., 2017): 70,000 images of 28x28, from Debian's package, a folder, or torchvision."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekd.data.idx import FILES, idx_files, read_idx
from edgekd.data.source import DataSource
from edgekd.data.splits import Arrays, split_validation
from edgekd.errors import BadData, Missing

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def load_fashion_mnist(folder: str | None, seed: int) -> DataSource:
    """Fashion-MNIST; the validation split is drawn from the training set with ``seed``.

    Raises:
        Missing: the files are nowhere and cannot be downloaded.
        BadData: a file that is not IDX, or does not fit its labels.
    """
    paths = idx_files(folder)
    if paths is None:
        paths = _download()
    images, labels, test_images, test_labels = (read_idx(path) for path in paths)
    for x, y, path in ((images, labels, paths[0]), (test_images, test_labels, paths[2])):
        if x.ndim != 3 or y.ndim != 1 or len(x) != len(y) or not len(x):
            raise BadData(
                f"images of the shape {x.shape}, labels of the shape {y.shape}: these do not belong together",
                where=str(path),
                remedy="fetch the files again",
            )
    labels, test_labels = labels.astype(np.int64), test_labels.astype(np.int64)
    train, val = split_validation(Arrays(images[:, None], labels), labels, seed)
    return DataSource(
        train=train,
        val=val,
        test=Arrays(test_images[:, None], test_labels),
        classes=CLASSES,
        preprocess={"layout": "chw", "scale": 1 / 255, "mean": [0.286], "std": [0.353]},
        name="fashion-mnist",
    )


def _download() -> list[Path]:
    import platformdirs
    from torchvision.datasets import FashionMNIST

    root = Path(platformdirs.user_cache_dir("edgekd", appauthor=False)) / "data"
    try:
        FashionMNIST(str(root), download=True)
    except Exception as error:
        raise Missing(
            f"Fashion-MNIST is not on this machine and cannot be downloaded ({error})",
            where="data.name",
            remedy="apt-get install dataset-fashion-mnist, or set data.path to a folder of its four IDX files",
        ) from error
    return [root / "FashionMNIST" / "raw" / name for name in FILES]
