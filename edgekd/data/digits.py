"""scikit-learn's handwritten digits: 1797 images of 8x8 in 17 grey levels (Alpaydin and Kaynak, 1998); offline."""

from __future__ import annotations

import numpy as np

from edgekd.data.source import DataSource
from edgekd.data.splits import Arrays, Part, split_validation, stratified

# scikit-learn gives one set; a fifth of each class is the test set, the same for every seed of a recipe.
TEST_SHARE, TEST_SEED = 0.2, 0


def load_digits(seed: int) -> DataSource:
    """Digits with a fixed test set; the validation split is drawn with ``seed``."""
    from sklearn.datasets import load_digits as load

    bunch = load()
    images, labels = bunch.images.astype(np.uint8)[:, None], bunch.target.astype(np.int64)
    everything = Arrays(images, labels)
    rest, test = stratified(labels, TEST_SHARE, TEST_SEED)
    train, val = split_validation(Arrays(images[rest], labels[rest]), labels[rest], seed)
    return DataSource(
        train=train,
        val=val,
        test=Part(everything, test, labels),
        classes=[str(digit) for digit in range(10)],
        preprocess={"layout": "chw", "scale": 1 / 16, "mean": [0.305], "std": [0.376]},
        name="digits",
    )
