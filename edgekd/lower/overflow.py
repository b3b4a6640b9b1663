"""Saturation on CPUs without VNNI: u8 x s8 products are summed in pairs in 16 bits (vpmaddubsw).

The static bound: for each output channel the two largest weight codes could meet the largest activation code. A layer
within the bound keeps its weights; the others get weights within ±63 (the form's ``weight_range``), or activations
that keep to 127 codes.
"""

from __future__ import annotations

import numpy as np

LARGEST = 32767


def overflows(codes: np.ndarray, axis: int, largest_activation: int) -> bool:
    """Whether some pair of products of a layer can leave 16 bits; ``codes`` int8 with output channels on ``axis``."""
    rows = np.abs(np.moveaxis(codes, axis, 0).reshape(codes.shape[axis], -1).astype(np.int64))
    if rows.shape[1] == 1:
        return bool((rows * largest_activation > LARGEST).any())
    top = np.partition(rows, rows.shape[1] - 2, axis=1)[:, -2:].sum(1)
    return bool((top * largest_activation > LARGEST).any())
