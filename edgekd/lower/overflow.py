"""Saturation on CPUs without VNNI: u8 x s8 products are summed in pairs in 16 bits (vpmaddubsw).

The static bound: in each output channel the two largest weights of one sign meet the largest activation code. A layer
within the bound keeps its weights; the others get weights within ±63 (the form's ``weight_range``). Activations that
keep to 127 codes bring a layer into the bound (`edgekd.lower.numbers.largest_code` says how far that holds). Which
products meet in a pair is up to the kernel's packing, so the bound takes any two.
"""

from __future__ import annotations

import numpy as np

LOWEST, HIGHEST = -32768, 32767


def overflows(codes: np.ndarray, axis: int, largest_activation: int) -> bool:
    """Whether some pair of products of a layer can leave 16 bits; ``codes`` int8 with output channels on ``axis``."""
    rows = np.moveaxis(codes, axis, 0).reshape(codes.shape[axis], -1).astype(np.int64)
    return largest_activation * _two_largest(rows) > HIGHEST or -largest_activation * _two_largest(-rows) < LOWEST


def _two_largest(rows: np.ndarray) -> int:
    """The largest sum of at most two weights of one channel: activations are not negative, so others count as 0."""
    padded = np.pad(np.maximum(rows, 0), ((0, 0), (0, 2)))
    return int(np.partition(padded, padded.shape[1] - 2, axis=1)[:, -2:].sum(1).max())
