"""The numpy preprocessing against Pillow and torchvision, and its refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgekd.runtime.preprocess import PreprocessError, apply

MODES = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}
SIDE = st.integers(1, 40)


def noise(height: int, width: int, channels: int, seed: int = 0, kind: str = "noise") -> np.ndarray:
    random = np.random.default_rng(seed)
    if kind == "edges":  # full contrast: overshoots of the cubic filter are cut
        return (random.integers(0, 2, (height, width, channels)) * 255).astype(np.uint8)
    return random.integers(0, 256, (height, width, channels)).astype(np.uint8)


@settings(deadline=None, max_examples=200)
@given(
    height=SIDE,
    width=SIDE,
    size=st.tuples(SIDE, SIDE),
    mode=st.sampled_from(sorted(MODES)),
    kind=st.sampled_from(["noise", "edges"]),
    seed=st.integers(0, 99),
)
def test_resize_is_pillows(height: int, width: int, size: tuple[int, int], mode: str, kind: str, seed: int) -> None:
    """To the code; in two steps, since versions of Pillow differ in which comes first."""
    raw = noise(height, width, 3, seed, kind)
    got = apply({"layout": "hwc", "resize": {"mode": mode, "size": list(size)}}, raw)
    image = Image.fromarray(raw).resize((size[1], height), MODES[mode]).resize((size[1], size[0]), MODES[mode])
    assert got.dtype == np.float32
    assert np.array_equal(got, np.asarray(image).transpose(2, 0, 1))


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(20, 90),
    width=st.integers(20, 90),
    share=st.floats(0.2, 0.95),
    mode=st.sampled_from(["bilinear", "bicubic"]),
)
def test_photographs_made_smaller_at_once(height: int, width: int, share: float, mode: str) -> None:
    """What training pipelines do: both sides alike, in one call; within rounding whatever Pillow starts with.

    Two passes round by half a code each, and bicubic weights make up to 1.3 of the first: two orders differ by 2.3.
    That holds where no pass cuts an overshoot at black or white, so the codes keep away from both.
    """
    dots = noise(9, 9, 3) // 2 + 64
    smooth = np.asarray(Image.fromarray(dots).resize((width, height), Image.Resampling.BICUBIC))
    size = (round(height * share), round(width * share))
    got = apply({"layout": "hwc", "resize": {"mode": mode, "size": list(size)}}, smooth)
    want = np.asarray(Image.fromarray(smooth).resize(size[::-1], MODES[mode])).transpose(2, 0, 1)
    assert np.abs(got - want).max() <= 2
    assert np.mean(np.abs(got - want) > 1) < 0.1


@settings(deadline=None, max_examples=40)
@given(size=st.tuples(SIDE, SIDE), mode=st.sampled_from(sorted(MODES)))
def test_floats_are_resized_unrounded(size: tuple[int, int], mode: str) -> None:
    raw = noise(12, 15, 1).astype(np.float32) / 7
    got = apply({"layout": "hwc", "resize": {"mode": mode, "size": list(size)}}, raw)[0]
    image = Image.fromarray(raw[..., 0]).resize((size[1], 12), MODES[mode]).resize(size[::-1], MODES[mode])
    assert np.allclose(got, np.asarray(image), atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(height=st.integers(8, 90), width=st.integers(8, 90), size=st.integers(8, 40))
def test_shorter_side_and_crop_are_torchvisions(height: int, width: int, size: int) -> None:
    from torchvision.transforms import functional

    raw = noise(height, width, 3)
    crop = [min(7, size), min(6, size)]
    got = apply({"layout": "hwc", "resize": {"mode": "bilinear", "size": size}, "crop": crop}, raw)
    image = functional.center_crop(functional.resize(Image.fromarray(raw), size), crop)
    assert np.abs(got - np.asarray(image).transpose(2, 0, 1)).max() <= 1


def test_layouts_and_numbers() -> None:
    raw = noise(5, 4, 3)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    spec = {"scale": 1 / 255, "mean": mean, "std": std}
    want = (raw.transpose(2, 0, 1) / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert np.allclose(apply(spec | {"layout": "hwc"}, raw), want, atol=1e-6)
    assert np.allclose(apply(spec | {"layout": "chw"}, raw.transpose(2, 0, 1)), want, atol=1e-6)
    assert apply({"layout": "hwc"}, raw[..., 0]).shape == (1, 5, 4)
    one = apply({"layout": "none", "scale": 3.0}, np.float64([1, 2]))
    assert one.tolist() == [3, 6]
    assert one.dtype == np.float32
    assert one.flags.c_contiguous


@pytest.mark.parametrize(
    ("spec", "raw", "match"),
    [
        ({"layout": "whc"}, noise(4, 4, 3), "unknown layout 'whc'"),
        ({"layout": "hwc"}, np.zeros((2, 3, 4, 5)), "an image has 2 or 3 dimensions"),
        ({"layout": "hwc", "resize": {"mode": "area", "size": 3}}, noise(4, 4, 3), "unknown resize mode 'area'"),
        ({"layout": "hwc", "resize": {"size": [0, 3]}}, noise(4, 4, 3), "resize to 0 x 3 leaves nothing"),
        ({"layout": "hwc", "crop": [5, 5]}, noise(4, 6, 3), "4 x 6 is smaller than the crop of 5 x 5"),
        ({"layout": "hwc", "mean": [1, 2]}, noise(4, 4, 3), "mean and std have 2 channels, the sample has 3"),
        ({"layout": "none", "crop": [1, 1]}, np.zeros(5), "resize and crop need height and width"),
        ({"layout": "none", "resize": {"size": 4}}, np.zeros(5), "resize and crop need height and width"),
        ({"layout": "none"}, np.array(["a"]), "an array of numbers"),
        ({"layout": "none"}, np.zeros((0, 3)), r"of the shape \(0, 3\)"),
    ],
)
def test_what_does_not_fit(spec: dict, raw: np.ndarray, match: str) -> None:
    with pytest.raises(PreprocessError, match=match):
        apply(spec, raw)
