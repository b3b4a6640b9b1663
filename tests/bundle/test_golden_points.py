import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_bundle import SPEC, raw_samples

from edgekd.bundle import Tolerance, golden_outputs, make_golden
from edgekd.errors import BadInput
from edgekd.runtime.golden import compare

LOGITS = {"logits": Tolerance("exact")}


def test_golden_points_run_one_sample_at_a_time():
    sizes = []

    def run(batch):
        sizes.append(len(batch))
        return {"logits": batch.sum((2, 3))}

    golden = make_golden(raw_samples(4), SPEC, run, LOGITS)
    assert sizes == [1] * 4
    assert golden.input.shape == (4, 3, 12, 12)
    assert golden.input.dtype == np.float32
    np.testing.assert_array_equal(golden.outputs["logits"].values, golden.input.sum((2, 3)))


def test_golden_samples_that_prove_nothing_are_refused():
    def run(batch):
        return {"logits": np.full((len(batch), 2), np.nan)}

    with pytest.raises(BadInput, match="NaN"):
        golden_outputs(run, np.zeros((2, 3)), LOGITS)
    with pytest.raises(BadInput, match="no output 'other'"):
        golden_outputs(run, np.zeros((2, 3)), {"other": Tolerance("top1")})
    with pytest.raises(BadInput, match="at least one"):
        make_golden([], SPEC, run, LOGITS)
    with pytest.raises(BadInput, match="different shapes"):
        make_golden(raw_samples(2), {**SPEC, "resize": None}, run, LOGITS)
    with pytest.raises(BadInput, match="does not fit"):
        make_golden([np.zeros((1, 2, 3, 4))], SPEC, run, LOGITS)


arrays = st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4).map(
    lambda values: np.array(values, np.float32).reshape(2, 2)
)


@given(arrays, arrays, st.floats(0, 1), st.sampled_from(["max_abs", "relative"]))
def test_the_measured_spread_holds_and_a_step_more_does_not(one, other, step, kind):
    largest = float(np.abs(other.astype(np.float64)).max())
    spread = float(np.abs(one.astype(np.float64) - other).max()) + step
    if kind == "relative" and largest == 0:
        assert compare(one, other, {"kind": kind, "value": 1e9})[0] == (not one.any())
        return
    unit = largest if kind == "relative" else 1.0
    tolerance = Tolerance(kind, spread / unit * (1 + 1e-12)).to_json()
    assert compare(one, other, tolerance)[0]
    shifted = one.astype(np.float64)
    shifted[0, 0] += (1 if one[0, 0] >= other[0, 0] else -1) * (spread * 1.01 + 1e-6)
    assert not compare(shifted, other.astype(np.float64), tolerance)[0]


@given(arrays)
def test_tolerances_of_each_kind(values):
    exact, top1 = {"kind": "exact", "value": 0}, {"kind": "top1", "value": 0}
    assert compare(values, values, exact)[0]
    assert compare(values, values, top1)[0]
    moved = values.copy()
    moved[1, 1] = np.nextafter(moved[1, 1], np.float32(1000))
    assert not compare(moved, values, exact)[0]
    assert not compare(values[:, ::-1] + np.float32([0, 1000]), values + np.float32([1000, 0]), top1)[0]
    for bad in (np.nan, np.inf):
        broken = values.copy()
        broken[0, 0] = bad
        for tolerance in (exact, top1, {"kind": "max_abs", "value": 1e9}):
            assert not compare(broken, values, tolerance)[0]
            assert not compare(broken, broken, tolerance)[0]
    assert not compare(values[:1], values, top1)[0]
