"""Range estimators: in streams as on all samples at once, and what they are for."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.quantize.clipping import STEPS, entropy_range, mse_range, percentile_range
from edgekd.quantize.histogram import BINS, MagnitudeHistogram
from edgekd.quantize.ranges import SiteRange
from edgekd.target import CalibrationPolicy

ESTIMATORS = ("min-max", "moving-average", "percentile", "mse", "entropy")


def values(seed: int, kind: str, count: int, gain: float) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(count, generator=random)
    made = {
        "normal": x,
        "relu": x.relu(),
        "heavy": x**3,
        "relu6": (4 * x).clamp(0, 6),
        "hardswish": torch.nn.functional.hardswish(3 * x),
        "outlier": torch.cat([x[:-1], torch.tensor([60.0])]),
    }
    return gain * made[kind]


KINDS = st.sampled_from(["normal", "relu", "heavy", "relu6", "hardswish", "outlier"])


def parts(x: torch.Tensor, cuts: list[int]) -> list[torch.Tensor]:
    return [x[a:b] for a, b in pairwise(sorted({0, len(x), *(cut % len(x) for cut in cuts)}))]


def counted(pieces: list[torch.Tensor]) -> MagnitudeHistogram:
    found = MagnitudeHistogram()
    for piece in pieces:
        found.add(piece)
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    kind=KINDS,
    cuts=st.lists(st.integers(0, 10**6), max_size=6),
    gain=st.floats(1e-5, 1e5),
)
def test_the_histogram_of_parts_is_that_of_all(seed: int, kind: str, cuts: list[int], gain: float) -> None:
    """Against numpy's, bin by bin, whatever order small and large parts come in."""
    x = values(seed, kind, 3000, gain)
    found = counted(parts(x, cuts))
    magnitude = x.abs().numpy()
    assert found.top / 2 <= magnitude.max() < found.top or found.top == 2**-24
    want = np.histogram(magnitude[magnitude > 0].astype(np.float64), found.edges)[0]
    assert np.array_equal(found.counts, want)
    assert found.zeros == int((magnitude == 0).sum())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), kind=KINDS, percentile=st.sampled_from([90.0, 99.0, 99.9, 100.0]))
def test_percentile(seed: int, kind: str, percentile: float) -> None:
    """Within a bin of the exact one on all samples."""
    x = values(seed, kind, 5000, 1.0)
    found = percentile_range(counted(parts(x, [100, 2000])), percentile)
    # Between two samples any value is a percentile: numpy's lower and higher one enclose it.
    low, high = (np.quantile(x.abs().numpy(), percentile / 100, method=how) for how in ("lower", "higher"))
    width = counted([x]).top / BINS
    assert low - width <= found <= high + width


def test_percentile_of_almost_nothing_but_zeros() -> None:
    """What little there is stays within the range."""
    x = torch.zeros(1_000_000)
    x[5] = 3.0
    assert site("percentile", [[x]]).estimate() == 3


def exact_error(x: np.ndarray, limit: float, steps: int = STEPS) -> float:
    step = limit / steps
    return float(np.square(x - step * np.clip(np.rint(x / step), -steps, steps)).mean())


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), kind=KINDS, gain=st.floats(1e-3, 1e3), steps=st.sampled_from([STEPS, 255]))
def test_mse(seed: int, kind: str, gain: float, steps: int) -> None:
    """Its range is as good as the best one that a search over all samples finds."""
    x = values(seed, kind, 20_000, gain)
    largest = float(x.abs().max())
    found = mse_range(counted(parts(x, [7, 9000])), largest, steps=lambda end: steps)
    exact = x.numpy().astype(np.float64)
    best = min(exact_error(exact, largest * i / 256, steps) for i in range(1, 257))
    assert exact_error(exact, found, steps) <= 1.03 * best


def test_mse_clips_one_outlier_and_keeps_a_grid_that_fits() -> None:
    x = values(0, "outlier", 100_000, 1.0)
    assert mse_range(counted([x]), 60.0) < 60
    assert exact_error(x.numpy(), mse_range(counted([x]), 60.0)) < exact_error(x.numpy(), 60.0)
    # Every value is on the grid of the largest: nothing is gained by clipping.
    grid = torch.arange(128.0).repeat(50)
    assert mse_range(counted([grid]), 127.0) == pytest.approx(127, rel=0.01)


def talk(magnitude: np.ndarray, edges: np.ndarray, codes: int) -> float:
    """The talk's procedure, loop by loop, on all samples at once."""
    counts = np.histogram(magnitude[magnitude > 0], edges)[0]
    best, found = math.inf, 0.0
    first = max(codes, int(np.searchsorted(counts.cumsum(), 0.9 * counts.sum())) + 1)
    for end in range(first, np.flatnonzero(counts)[-1] + 2, 8):
        reference = counts[:end].astype(float)
        reference[-1] += counts[end:].sum()
        coarse = np.zeros(end)
        for code in range(codes):
            piece = np.arange(code * end // codes, (code + 1) * end // codes)
            some = piece[counts[piece] > 0]
            coarse[some] = counts[piece].sum() / max(len(some), 1)
        p, q = reference / reference.sum(), coarse / coarse.sum()
        if (q[p > 0] == 0).any():
            continue
        divergence = float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())
        if divergence < best:
            best, found = divergence, float(edges[end])
    return found


@pytest.mark.parametrize("kind", ["relu", "heavy"])
def test_entropy_is_that_of_the_talk(kind: str) -> None:
    x = values(3, kind, 100_000, 1.0)
    histogram = counted(parts(x, [5, 70_000]))
    want = talk(x.abs().numpy().astype(np.float64), histogram.edges, STEPS + 1)
    assert entropy_range(histogram, 1e9) == want
    assert entropy_range(histogram, want / 2) == want / 2, "never beyond what is allowed"


def test_entropy_of_a_gate() -> None:
    """Far from zero, a range that holds a single bin would copy the clipped distribution perfectly."""
    x = 0.4 + 0.2 * torch.rand(50_000, generator=torch.Generator().manual_seed(0))
    assert entropy_range(counted([x]), float(x.max())) > 0.58


def test_entropy_clips_a_heavy_tail() -> None:
    x = values(1, "heavy", 400_000, 1.0)
    assert entropy_range(counted([x]), float(x.abs().max())) < 0.8 * float(x.abs().max())


def site(estimator: str, batches: list[list[torch.Tensor]], **policy) -> SiteRange:
    found = SiteRange(CalibrationPolicy(estimator=estimator, **policy))  # type: ignore[arg-type]
    for batch in batches:
        for piece in batch:
            found.see(piece)
        found.end_batch()
    return found


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    estimator=st.sampled_from(ESTIMATORS),
    seed=st.integers(0, 2**31),
    kind=KINDS,
    cuts=st.lists(st.integers(0, 10**6), max_size=5),
)
def test_how_batches_are_cut_does_not_count(estimator: str, seed: int, kind: str, cuts: list[int]) -> None:
    batches = values(seed, kind, 4000, 1.0).split(1000)
    whole = site(estimator, [[batch] for batch in batches])
    cut = site(estimator, [parts(batch, cuts) for batch in batches])
    assert whole.estimate() == cut.estimate()
    assert 0 < whole.estimate() <= max(float(batch.abs().max()) for batch in batches)


def test_min_max_is_the_largest_of_all_batches() -> None:
    batches = [torch.tensor([0.5, -2.0]), torch.tensor([9.0, 1.0]), torch.tensor([0.0, 3.0])]
    assert site("min-max", [[batch] for batch in batches]).estimate() == 9


def test_a_moving_average_begins_as_a_mean() -> None:
    batches = [torch.tensor([-float(i), i / 2]) for i in range(1, 9)]
    assert site("moving-average", [[b] for b in batches[:4]], averaging=0.05).estimate() == pytest.approx(2.5)
    # Of weight a half from the second batch on: 1, 1.5, 2.25, 3.125, ...
    want = 1.0
    for i in range(2, 9):
        want += (i - want) / 2
    assert site("moving-average", [[b] for b in batches], averaging=0.5).estimate() == pytest.approx(want)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_constant_is_told_and_has_a_range(estimator: str) -> None:
    zero = site(estimator, [[torch.zeros(2, 5)], [torch.zeros(2, 5)]])
    assert (zero.constant, zero.estimate()) == (True, 0)
    one = site(estimator, [[torch.full((2, 5), -3.0)]])
    assert one.constant
    assert one.estimate() == pytest.approx(3, rel=0.02)
    assert not site(estimator, [[torch.zeros(3)], [torch.ones(3)]]).constant


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("spoilt", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_not_forgotten(estimator: str, spoilt: float) -> None:
    batches = [torch.randn(50), torch.tensor([1.0, spoilt, 2.0]), torch.randn(50)]
    assert not site(estimator, [[batch] for batch in batches]).finite
