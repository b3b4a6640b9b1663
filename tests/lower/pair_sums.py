"""An exact emulation of vpmaddubsw (Intel SDM): products of unsigned and signed bytes, summed in pairs in int16."""

from __future__ import annotations

import numpy as np


def multiply_pairs(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, K) uint8 by (C, K) int8: sums of adjacent pairs saturated to int16, then added; (N, C) int64."""
    products = activations.astype(np.int64)[:, None] * weights.astype(np.int64)[None]
    if products.shape[2] % 2:
        products = np.pad(products, ((0, 0), (0, 0), (0, 1)))
    pairs = products.reshape(*products.shape[:2], -1, 2).sum(3)
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(2)


def exact(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return activations.astype(np.int64) @ weights.astype(np.int64).T


def position_major(weights: np.ndarray) -> np.ndarray:
    """A convolution's weights (C, inputs, ...) as (C, K) with the input channels innermost, as MLAS orders them."""
    return np.moveaxis(weights, 1, -1).reshape(len(weights), -1)


def padded_positions(weights: np.ndarray) -> np.ndarray:
    """The same, each position padded to whole groups of four channels, as oneDNN orders them."""
    rows = np.moveaxis(weights, 1, -1)
    missing = -rows.shape[-1] % 4
    return np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, missing)]).reshape(len(weights), -1)


def worst(rows: np.ndarray, largest: int) -> np.ndarray:
    """Activations that meet rows (C, K) at their worst: the largest code at each channel's weights of one sign."""
    return np.concatenate([np.where(rows > 0, largest, 0), np.where(rows < 0, largest, 0)]).astype(np.uint8)
