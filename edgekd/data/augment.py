"""Random changes of a batch of images that keep their labels: flip, shift, cutout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Largest shift and side of the cut-out square, as shares of the image's side.
SHIFT, CUTOUT = 0.1, 0.25


def augment(x: Tensor, names: Sequence[str], generator: torch.Generator) -> Tensor:
    """A changed copy of ``x`` (N, C, H, W); random numbers come from ``generator`` (a CPU one) alone.

    ``flip`` mirrors left and right with probability one half; ``shift`` moves by up to a tenth of the side and
    repeats the border; ``cutout`` (DeVries and Taylor, 2017) sets a square of a quarter of the side to zero, the mean
    of normalized data. Samples that are not images (not 3 dimensions) are returned as they are.
    """
    if not names or x.dim() != 4:
        return x
    count, _, height, width = x.shape
    device = x.device
    rows = torch.arange(height).expand(count, height)
    columns = torch.arange(width).expand(count, width)
    if "shift" in names:
        rows = (rows + _integers(count, max(1, round(SHIFT * height)), generator)).clamp(0, height - 1)
        columns = (columns + _integers(count, max(1, round(SHIFT * width)), generator)).clamp(0, width - 1)
    if "flip" in names:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    if "flip" in names or "shift" in names:
        sample = torch.arange(count, device=device)[:, None, None]
        # Advanced indices around the channel slice put the channels last.
        x = x[sample, :, rows.to(device)[:, :, None], columns.to(device)[:, None, :]].permute(0, 3, 1, 2).contiguous()
    if "cutout" in names:
        keep = _outside(count, height, generator)[:, :, None] | _outside(count, width, generator)[:, None, :]
        x = x * keep[:, None].to(device, x.dtype)
    return x


def _integers(count: int, most: int, generator: torch.Generator) -> Tensor:
    return torch.randint(-most, most + 1, (count, 1), generator=generator)


def _outside(count: int, side: int, generator: torch.Generator) -> Tensor:
    """(count, side) bool: outside of a random span of a quarter of the side."""
    length = max(1, round(CUTOUT * side))
    begin = torch.randint(0, side, (count, 1), generator=generator) - length // 2
    at = torch.arange(side)
    return (at < begin) | (at >= begin + length)
