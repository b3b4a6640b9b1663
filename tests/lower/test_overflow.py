"""CPUs without VNNI sum u8 x s8 products in pairs in 16 bits: the static bound, against an exact emulation."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pair_sums import exact, multiply_pairs, padded_positions, position_major, worst

from edgekd.backends.onnxruntime import X86
from edgekd.lower.numbers import weight_parameters
from edgekd.lower.overflow import HIGHEST, Meeting, bound, least_scales, meeting, pair_sums

CODES = st.integers(-127, 127)
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 3))
ORDERS = {"position major": position_major, "padded positions": padded_positions}


def who_meets(shape: tuple[int, ...], meet: Meeting) -> list[tuple[int, int]]:
    """Pairs of places in a channel's flat weights (inputs, positions)."""
    inputs, positions = shape[1:]
    places = range(inputs * positions)
    if meet == "any":
        return list(combinations(places, 2))
    if meet == "none":
        return []
    return [
        ((2 * i) * positions + p, (2 * i + 1) * positions + p) for i in range(inputs // 2) for p in range(positions)
    ]


@settings(max_examples=60, deadline=None)
@given(codes=arrays.arrays(np.int8, SHAPES, elements=CODES), meet=st.sampled_from(["neighbours", "any", "none"]))
def test_bound_is_brute_force_over_pairs(codes: np.ndarray, meet: Meeting) -> None:
    """Each of two that meet has an activation of 0 or 255; a single product may be the largest, too."""
    rows = codes.reshape(len(codes), -1).astype(int)
    largest = 0
    for row in rows:
        sums = [abs(255 * w) for w in row]
        sums += [
            abs(255 * (a * row[i] + b * row[j]))
            for i, j in who_meets(codes.shape, meet)
            for a in (0, 1)
            for b in (0, 1)
        ]
        largest = max(largest, *sums)
    assert bound(codes, 0, meet, 255) == largest


def test_which_weights_meet() -> None:
    assert meeting("Gemm", (10, 7), 1) == meeting("MatMul", (7, 10), 1) == "neighbours"
    assert meeting("Conv", (8, 16, 3, 3), 1) == meeting("Conv", (8, 2, 3), 4) == "neighbours"
    assert meeting("Conv", (8, 3, 3, 3), 1) == meeting("ConvTranspose", (8, 8, 2, 2), 1) == "any"
    assert meeting("Conv", (8, 1, 3, 3), 8) == "none"
    # Two filters a channel, and one channel alone, run in the kernels of other convolutions.
    assert meeting("Conv", (16, 1, 3, 3), 8) == meeting("Conv", (1, 1, 3, 3), 1) == "any"


def written(weight: np.ndarray, axis: int, meet: Meeting, *, cured: bool) -> tuple[np.ndarray, np.ndarray]:
    flat = np.abs(np.moveaxis(weight, axis, 0)).reshape(weight.shape[axis], -1)
    scale = np.maximum(flat.max(1) / 127, 2**-24).astype(np.float32)
    codes, scales = weight_parameters(weight, scale, axis, X86)
    if not cured:
        return codes, scales
    return weight_parameters(weight, scale, axis, X86, least=least_scales(weight, codes, axis, meet))


@settings(max_examples=80, deadline=None)
@given(data=st.data(), order=st.sampled_from(list(ORDERS)))
def test_cured_convolutions_never_saturate(data: st.DataObject, order: str) -> None:
    """Whatever the weights, the activations and the kernel's order; uncured ones do when their bound says so."""
    inputs = data.draw(st.integers(1, 6))
    weight = data.draw(arrays.arrays(np.float32, (3, inputs, 3), elements=st.floats(-1, 1, width=32)))
    meet = meeting("Conv", weight.shape, 1)
    full, scales = written(weight, 0, meet, cured=False)
    codes, tight = written(weight, 0, meet, cured=True)
    rows = ORDERS[order](codes)
    noise = data.draw(arrays.arrays(np.uint8, (4, rows.shape[1])))
    x = np.concatenate([worst(rows, 255), noise])
    assert np.array_equal(multiply_pairs(x, rows), exact(x, rows))
    within = pair_sums(full, 0, meet) * 255 <= HIGHEST
    assert np.array_equal(tight[within], scales[within]), "channels within the bound stay as trained"
    assert (tight <= 2.0001 * scales).all(), "half range is the worst"
    if meet == "neighbours":
        rows = ORDERS[order](full)
        x = worst(rows, 255)
        assert np.array_equal(multiply_pairs(x, rows), exact(x, rows)) == within.all(), "the bound is sharp"


@settings(max_examples=40, deadline=None)
@given(weight=arrays.arrays(np.float32, (7, 3), elements=st.floats(-1, 1, width=32)), codes=st.integers(0, 2**32 - 1))
def test_cured_matrix_products_never_saturate(weight: np.ndarray, codes: int) -> None:
    """MatMul: (K, N), an odd K."""
    kept, _ = written(weight, 1, "neighbours", cured=True)
    x = np.random.default_rng(codes).integers(0, 256, (8, 7)).astype(np.uint8)
    x = np.concatenate([x, worst(kept.T, 255)])
    assert np.array_equal(multiply_pairs(x, kept.T), exact(x, kept.T))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_127_codes_never_saturate(data: st.DataObject) -> None:
    """Full-range weights in any order."""
    codes = data.draw(arrays.arrays(np.int8, (3, 8), elements=CODES))
    x = np.concatenate([worst(codes, 127), data.draw(arrays.arrays(np.uint8, (4, 8), elements=st.integers(0, 127)))])
    assert np.array_equal(multiply_pairs(x, codes), exact(x, codes))


@pytest.mark.parametrize("inputs", [16, 64, 576])
def test_tightening_costs_less_than_half_range(inputs: int) -> None:
    """Normal weights: the largest pair of neighbours is far smaller than two of the largest."""
    weight = np.random.default_rng(0).normal(size=(32, inputs)).astype(np.float32)
    _, full = written(weight, 0, "neighbours", cured=False)
    _, tight = written(weight, 0, "neighbours", cured=True)
    added = (np.square(tight) - np.square(full)).sum() / np.square(full).sum()
    assert 0 < added < 0.6 * 3
