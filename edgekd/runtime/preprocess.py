"""From a raw sample to the model's input, in numpy: the one implementation for training, calibration and devices.

A spec is a JSON mapping: ``layout`` ("hwc": an image as height, width, channels or height, width; "chw"; "none": any
tensor), ``resize`` (null, or {"mode": "bilinear" | "bicubic" | "nearest", "size": [height, width] or the length of the
shorter side}), ``crop`` (null or [height, width], centred), ``scale``, ``mean`` and ``std`` (a number a channel, or
one for all). The result is (sample * scale - mean) / std as float32, channels first.

Bilinear and bicubic filters are antialiased as Pillow's are (triangle, and Keys' cubic with a = -0.5, widened by the
scale), the rows first, then the columns: to the code what Pillow makes of an 8-bit image in two such steps (its newest
versions start with the columns where that is cheaper).
"""

from __future__ import annotations

from typing import Any

import numpy as np

RESIZE_MODES = ("bilinear", "bicubic", "nearest")
LAYOUTS = ("hwc", "chw", "none")
# One in Pillow's 8-bit filters (src/libImaging/Resample.c); float64 holds their sums exactly.
FIXED = 2.0**22


class PreprocessError(ValueError):
    """A sample that does not fit the spec, or a spec with unknown values."""


def apply(spec: dict[str, Any], raw: np.ndarray) -> np.ndarray:
    """One raw sample (no batch dimension) as the model's input: float32, channels first.

    Raises:
        PreprocessError: the sample does not fit the spec.
    """
    layout = spec.get("layout", "none")
    if layout not in LAYOUTS:
        raise PreprocessError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    x = np.asarray(raw)
    if layout == "hwc":
        if x.ndim not in (2, 3):
            raise PreprocessError(f"an image has 2 or 3 dimensions, this sample has the shape {x.shape}")
        x = x[None] if x.ndim == 2 else x.transpose(2, 0, 1)
    if x.dtype.kind not in "biuf" or not x.size:
        raise PreprocessError(f"a sample is an array of numbers, this one is {x.dtype} of the shape {x.shape}")
    if (spec.get("resize") or spec.get("crop")) and x.ndim < 2:
        raise PreprocessError(f"resize and crop need height and width, this sample has the shape {x.shape}")
    if spec.get("resize"):
        x = _resize(x, spec["resize"])
    if spec.get("crop"):
        x = _crop(x, spec["crop"])
    out = x.astype(np.float32) * np.float32(spec.get("scale", 1.0))
    if spec.get("mean") is not None:
        out = (out - _per_channel(spec["mean"], out)) / _per_channel(spec.get("std", [1.0]), out)
    return np.ascontiguousarray(out, dtype=np.float32)


def _per_channel(values: Any, x: np.ndarray) -> np.ndarray:
    column = np.atleast_1d(np.asarray(values, np.float32))
    if len(column) not in (1, x.shape[0]):
        raise PreprocessError(f"mean and std have {len(column)} channels, the sample has {x.shape[0]}")
    return column.reshape((-1,) + (1,) * (x.ndim - 1))


def _resize(x: np.ndarray, resize: dict[str, Any]) -> np.ndarray:
    mode, size = resize.get("mode", "bilinear"), resize["size"]
    if mode not in RESIZE_MODES:
        raise PreprocessError(f"unknown resize mode {mode!r}; known: {', '.join(RESIZE_MODES)}")
    height, width = x.shape[-2:]
    if isinstance(size, int):
        # The shorter side becomes `size`; the longer is cut down to a whole number, as torchvision does.
        new = (size, int(size * width / height)) if height <= width else (int(size * height / width), size)
    else:
        new = (int(size[0]), int(size[1]))
    if min(new) < 1:
        raise PreprocessError(f"resize to {new[0]} x {new[1]} leaves nothing")
    if new == (height, width):
        return x
    if mode == "nearest":
        rows, columns = _nearest(height, new[0]), _nearest(width, new[1])
        return x[..., rows[:, None], columns]
    across, down = _weights(width, new[1], mode), _weights(height, new[0], mode)
    return _filter(_filter(x, across).swapaxes(-1, -2), down).swapaxes(-1, -2)


def _nearest(old: int, new: int) -> np.ndarray:
    """(new,) indices: centres by repeated addition, whose roundings decide where two pixels are equally near."""
    steps = np.full(new, old / new)
    steps[0] /= 2
    return np.minimum(np.add.accumulate(steps).astype(int), old - 1)


def _filter(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(..., old) -> (..., new); 8-bit images in Pillow's fixed-point numbers, rounded to codes after each pass."""
    if x.dtype != np.uint8:
        return (x.astype(np.float64) @ weights.T).astype(np.float32)
    fixed = np.trunc(weights * FIXED + np.copysign(0.5, weights))
    return np.clip(np.floor((x.astype(np.float64) @ fixed.T) / FIXED + 0.5), 0, 255).astype(np.uint8)


def _weights(old: int, new: int, mode: str) -> np.ndarray:
    """(new, old) rows of an antialiased filter."""
    scale = old / new
    stretch = max(scale, 1.0)
    centre = (np.arange(new) + 0.5) * scale
    # Pillow takes whole pixels from centre - support to centre + support.
    support = (1.0 if mode == "bilinear" else 2.0) * stretch
    first = np.maximum((centre - support + 0.5).astype(int), 0)
    last = np.minimum((centre + support + 0.5).astype(int), old)
    pixel = np.arange(old)
    inside = (pixel >= first[:, None]) & (pixel < last[:, None])
    t = np.abs((pixel + 0.5 - centre[:, None]) / stretch)
    if mode == "bilinear":
        weight = np.maximum(1 - t, 0)
    else:
        near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
        weight = np.where(t < 1, near, np.where(t < 2, far, 0))
    weight = weight * inside
    return weight / weight.sum(1, keepdims=True)


def _crop(x: np.ndarray, crop: Any) -> np.ndarray:
    height, width = int(crop[0]), int(crop[1])
    if x.shape[-2] < height or x.shape[-1] < width:
        raise PreprocessError(
            f"a sample of {x.shape[-2]} x {x.shape[-1]} is smaller than the crop of {height} x {width}"
        )
    top, left = round((x.shape[-2] - height) / 2), round((x.shape[-1] - width) / 2)
    return x[..., top : top + height, left : left + width]
