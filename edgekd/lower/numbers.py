"""The numbers of a form: scales, zero points and codes, each a pure function of the master's numbers."""

from __future__ import annotations

import numpy as np

from edgekd.forms import QuantForm, Site

UNSIGNED_ZERO = 128
# Steps of the master's scale from zero to the end of a range.
STEPS = np.float32(127)
# The largest code of an int32 bias: the other half of the range is for the sum of products.
LARGEST_BIAS = 2**30


def site_parameters(site: Site, form: QuantForm, *, few_codes: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scale (float32, rank 0) and zero point of a site of the master in a form.

    ``few_codes`` keeps a non-negative site to 127 codes of uint8.
    """
    one = np.float32(site.scale)
    chosen: tuple[np.float32, np.uint8 | np.int8]
    if site.sign == "nonnegative":
        finer = np.float32(one * np.float32(127 / 255))
        kinds: dict[str, tuple[np.float32, np.uint8 | np.int8]] = {
            "u8/255": (finer, np.uint8(0)),
            "s8-128": (finer, np.int8(-128)),
            "s8/127": (one, np.int8(0)),
        }
        chosen = (one, np.uint8(0)) if few_codes else kinds[form.nonnegative]
    elif form.floors != "none" and site.floor is not None and site.floor > -one * STEPS:
        chosen = _above_floor(site.floor, one, form)
    else:
        chosen = (one, np.uint8(UNSIGNED_ZERO)) if form.signed == "u8@128" else (one, np.int8(0))
    return written_scale(np.array(chosen[0]), form), np.array(chosen[1])


def _above_floor(floor: float, one: np.float32, form: QuantForm) -> tuple[np.float32, np.uint8 | np.int8]:
    """All codes for [floor, r], the part of the master's [-r, r] that the value can be in.

    One step is kept for the zero point's rounding, so that both ends have a code.
    """
    step = np.float32((one * STEPS - np.float32(floor)) / np.float32(254))
    zero = int(np.ceil(-floor / step))
    return (step, np.uint8(zero)) if form.floors == "u8" else (step, np.int8(zero - UNSIGNED_ZERO))


def weight_parameters(
    weight: np.ndarray, scale: np.ndarray, axis: int, form: QuantForm, *, least: np.ndarray | float = 0
) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes and float32 scales (channels,) of a weight of the master's ``scale``; none is below ``least``."""
    scale = written_scale(np.maximum(scale, least).astype(np.float32), form)
    return quantize_weight(weight, scale, axis), scale


def quantize_weight(weight: np.ndarray, scale: np.ndarray, axis: int) -> np.ndarray:
    """int8 codes as QuantizeLinear rounds (half to even)."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    return np.clip(np.rint(weight / scale.reshape(shape)), -127, 127).astype(np.int8)


def written_scale(scale: np.ndarray, form: QuantForm) -> np.ndarray:
    """The scale as the form's file holds it: with float16 around integers, the next float16 that is not smaller.

    Codes made with it need no correction, and none becomes zero.
    """
    if not is_half(form):
        return scale
    half = scale.astype(np.float16)
    return np.where(half < scale, np.nextafter(half, np.float16(np.inf)), half).astype(np.float32)


def is_half(form: QuantForm) -> bool:
    """Whether the file computes in float16 where it is not integer, scales included."""
    return form.float_type == "fp16" and form.rules == "tensorrt"


def least_scale(bias: np.ndarray, data_scale: np.ndarray) -> np.ndarray:
    """The smallest weight scales with which the bias in units of data scale x weight scale stays in its codes.

    Channels of tiny weights beside a large bias (pruned, dead) would overflow int32, and ONNX Runtime tells nobody.
    """
    least: np.ndarray = np.abs(bias) / (data_scale * np.float32(LARGEST_BIAS))
    return least


def clip_at(scale: np.ndarray) -> np.ndarray:
    """The end of the master's range, where its rounding clips a site of this scale; float32, rank 0."""
    return np.array(np.float32(scale) * np.float32(127))
