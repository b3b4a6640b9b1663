"""What relaxing and rounding may change: a share of the outputs, or anything that comes out as near to float."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import ProofFailed
from edgekd.measure.proof import FARTHER_LARGEST, FARTHER_MEAN, RELAXING, Hop, HopResult, Kind, prove

RANDOM = np.random.default_rng(0)
# Two classes far apart from each other, so that noise alone changes no decision.
FLOATING = np.tile(np.float32([4, -4]), (200, 1)) + RANDOM.normal(size=(200, 2)).astype(np.float32)
NOISE = [RANDOM.uniform(-1, 1, FLOATING.shape).astype(np.float32) for _ in range(2)]
ROWS = np.arange(len(FLOATING))[:, None]


def relax(
    master: np.ndarray, lowered: np.ndarray, floating: np.ndarray | None = FLOATING, kind: Kind = "relaxing"
) -> HopResult:
    hops = [
        Hop("master", lambda rows: master[rows[:, 0]]),
        Hop("lowered", lambda rows: lowered[rows[:, 0]], kind),
    ]
    return prove(hops, ROWS, np.zeros(len(ROWS), int), floating=floating)[1]


def refused(
    master: np.ndarray, lowered: np.ndarray, floating: np.ndarray | None = FLOATING, kind: Kind = "relaxing"
) -> str:
    with pytest.raises(ProofFailed, match="lowered differs from master") as error:
        relax(master, lowered, floating, kind)
    return error.value.remedy


def test_a_small_move_holds_by_its_share_wherever_float_is() -> None:
    result = relax(FLOATING, FLOATING + NOISE[0])
    assert 0.1 < result.rms_rel < RELAXING
    assert result.tolerance == "mean difference at most 25 %"
    assert relax(FLOATING, FLOATING + NOISE[0], None) == result


@pytest.mark.parametrize("size", [0.2, 1.0, 1 + FARTHER_MEAN - 0.05])
def test_a_large_move_holds_where_it_comes_out_as_near_to_float(size: float) -> None:
    master, lowered = FLOATING + 3 * NOISE[0], FLOATING - 3 * size * NOISE[0]
    result = relax(master, lowered)
    assert result.rms_rel > RELAXING
    assert result.tolerance.startswith("as near to float as the form before it (mean difference at most ")
    assert refused(master, lowered, None).startswith("allowed: mean difference at most 25 %. This")


def test_farther_in_the_mean_is_refused_and_both_measures_told() -> None:
    remedy = refused(FLOATING + 3 * NOISE[0], FLOATING - 3 * (1 + FARTHER_MEAN + 0.05) * NOISE[0])
    assert remedy.startswith("allowed: mean difference at most 25 %, or as near to float as the form before it (mean ")


@pytest.mark.parametrize(("size", "holds"), [(FARTHER_LARGEST - 0.05, True), (FARTHER_LARGEST + 0.05, False)])
def test_farther_at_the_largest_is_refused(size: float, holds: bool) -> None:
    """One sample, which the mean hardly shows."""
    master, lowered = FLOATING + 3 * NOISE[0], FLOATING - 3 * NOISE[0]
    lowered[7] = FLOATING[7] + (1 + size) * np.abs(master - FLOATING).max() * np.float32([1, 0])
    if holds:
        assert relax(master, lowered).ok
    else:
        assert "largest at most" in refused(master, lowered)


@pytest.mark.parametrize(("count", "holds"), [(4, True), (5, False)])
def test_other_decisions_are_refused(count: int, holds: bool) -> None:
    """A form that is as near, with more decisions changed than a share of 2 %."""
    floating = FLOATING.copy()
    floating[:20] = [0.1, 0]
    master, lowered = floating + 3 * NOISE[0], floating - 3 * NOISE[0]
    master[:20] = floating[:20] + np.float32([0.5, 0])
    lowered[:20] = master[:20]
    lowered[:count] = floating[:count] + np.float32([0, 0.5])
    if holds:
        assert relax(master, lowered, floating).ok
    else:
        assert "decisions equal on 98.0 %: 97.5 %" in refused(master, lowered, floating)


@pytest.mark.parametrize("size", [0.2, 1.0, 1 + FARTHER_MEAN - 0.05])
def test_so_does_another_engines_rounding(size: float) -> None:
    file, compiled = FLOATING + 3 * NOISE[0], FLOATING - 3 * size * NOISE[0]
    result = relax(file, compiled, kind="rounding")
    assert result.rms_rel > RELAXING
    assert result.tolerance.startswith("as near to float as the form before it (mean difference at most ")
    assert "as near" not in refused(file, compiled, None, "rounding")


def test_so_do_other_decisions_of_another_engine_that_are_as_many_as_the_files() -> None:
    """Of twelve ties in 200 the file decides one half otherwise than float, the engine the other."""
    floating = FLOATING.copy()
    floating[:12] = [0.1, 0]
    file, compiled = floating.copy(), floating.copy()
    file[:6], compiled[6:12] = [0, 0.1], [0, 0.1]
    result = relax(file, compiled, floating, "rounding")
    assert result.rms_rel < 0.05
    assert result.agreement == 0.94
    assert result.tolerance.startswith("as near to float as the form before it (mean difference at most ")
    compiled[12:18] = floating[12:18, ::-1]
    assert "decisions equal on 95.0 %: 94.0 %" in refused(file, compiled, floating, "rounding")


def test_another_engine_that_comes_out_farther_is_refused() -> None:
    remedy = refused(FLOATING + 3 * NOISE[0], FLOATING - 3 * (1 + FARTHER_MEAN + 0.05) * NOISE[0], kind="rounding")
    assert "mean difference at most 25 %, decisions equal on 98.0 %, or as near to float as the form" in remedy


@pytest.mark.parametrize("kind", ["relaxing", "rounding"])
@pytest.mark.parametrize(
    "fault", [lambda x: 1.3 * x, lambda x: 0.7 * x, lambda x: x + np.float32([2, 0]), np.zeros_like]
)
@pytest.mark.parametrize("coarse", [0.0, 0.1, 0.4])
def test_a_fault_behind_a_good_master_is_refused(fault, coarse: float, kind: Kind) -> None:
    master = FLOATING + coarse * NOISE[0]
    refused(master, fault(FLOATING + coarse * NOISE[1]), kind=kind)


def test_nan_is_refused() -> None:
    lowered = FLOATING.copy()
    lowered[3, 0] = np.nan
    with pytest.raises(ProofFailed, match="NaN"):
        relax(FLOATING + 3 * NOISE[0], lowered)
