"""Saturation on CPUs without VNNI: the static bound of a layer, and weights that stay within it.

There products of unsigned bytes and weights are summed in pairs in 16 bits (vpmaddubsw), then in 32. A layer is
within the bound when in no output channel two weights that meet in a pair can leave 16 bits, each with an activation
between 0 and the largest code: two of one sign, since the other's activation may be 0.

Which weights meet is up to the kernels. Read in their sources and seen in compiled models (tests/lower,
test_overflow_kernels.py), at AVX2 and AVX-512:

- Input channels 2i and 2i + 1 of one kernel position, where a group has an even number of them, and inputs 2i and
  2i + 1 of a linear layer. ONNX Runtime: onnxruntime/core/mlas/lib/amd64/ConvSymKernelAvx2.asm (four channels of a
  position at a time) and QgemmU8S8KernelAvx2.asm (position-major, channels innermost). OpenVINO:
  oneDNN src/cpu/x64/jit_uni_x8s8s32x_conv_kernel.cpp, jit_avx512_core_x8s8s32x_conv_kernel.cpp, brgemm.
- None in a depthwise convolution with one filter a channel: both multiply it in wider integers.
- Otherwise (an odd number of channels, transposed convolutions) any two are taken to meet.

Products of two activations (attention): OpenVINO's second factor is signed, and neighbours 2i and 2i + 1 of the summed
dimension meet. ONNX Runtime's factors are both unsigned, for which it multiplies words (vpmaddwd), exactly.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

HIGHEST = 32767
# Unsigned bytes: signed activations are shifted to them by every engine on x86.
LARGEST_CODE = 255

LOWEST = -32768
# Of a signed activation's codes: engines do not clip it at -127.
LOWEST_SIGNED, HIGHEST_SIGNED = -128, 127

Meeting = Literal["neighbours", "any", "none"]


def meeting(op_type: str, shape: tuple[int, ...], group: int) -> Meeting:
    """Which two weights of an output channel meet in a pair; ``shape`` of the weight as its operator holds it."""
    if op_type in ("Gemm", "MatMul"):
        return "neighbours"
    if op_type == "Conv" and shape[1] == 1 and group == shape[0] > 1:
        return "none"
    return "neighbours" if op_type == "Conv" and shape[1] % 2 == 0 else "any"


def pair_sums(weight: np.ndarray, axis: int, meet: Meeting) -> np.ndarray:
    """The largest magnitude of two weights of one sign that meet, for each output channel; (channels,) float64."""
    rows = np.moveaxis(weight, axis, 0).astype(np.float64)
    return np.maximum(_sums(np.maximum(rows, 0), meet), _sums(np.maximum(-rows, 0), meet))


def bound(codes: np.ndarray, axis: int, meet: Meeting, largest_code: int) -> int:
    """The largest sum of two products that the layer can make, to be held against `HIGHEST`."""
    return largest_code * int(pair_sums(codes, axis, meet).max())


def product_saturates(pair_codes: int) -> bool:
    """Whether a product of activations can, whose first factor has neighbours of at most ``pair_codes`` together."""
    return HIGHEST_SIGNED * pair_codes > HIGHEST or LOWEST_SIGNED * pair_codes < LOWEST


def softmax_pair_codes(scale: float) -> int:
    """The most that two codes of a softmax's output sum up to: its values sum up to 1, each code is rounded."""
    return min(2 * LARGEST_CODE, int(1 / scale + 1 + 1e-3))


def least_scales(
    weight: np.ndarray, codes: np.ndarray, axis: int, meet: Meeting, largest_code: int = LARGEST_CODE
) -> np.ndarray:
    """The smallest weight scales that keep a layer within the bound; 0 for a channel whose ``codes`` are within it.

    Each is at most twice a full-range scale, which is half-range weights (±63): most channels need less.
    """
    allowed = HIGHEST // largest_code
    beyond = pair_sums(codes, axis, meet) > allowed
    # Each of the two may be rounded up by a half.
    return np.where(beyond, pair_sums(weight, axis, meet) / (allowed - 1), 0).astype(np.float32)


def _sums(rows: np.ndarray, meet: Meeting) -> np.ndarray:
    """The largest sum of two entries that meet, of rows (channels, inputs, ...) that are not negative."""
    if meet == "neighbours":
        rows = np.pad(rows, [(0, 0), (0, rows.shape[1] % 2)] + [(0, 0)] * (rows.ndim - 2))
        pairs: np.ndarray = rows[:, ::2] + rows[:, 1::2]
        return pairs.reshape(len(rows), -1).max(1)
    flat = np.pad(rows.reshape(len(rows), -1), ((0, 0), (0, 2)))
    largest: np.ndarray = np.partition(flat, flat.shape[1] - 2, axis=1)[:, -2:]
    return largest.sum(1) if meet == "any" else largest[:, -1]
