"""CPUs without VNNI sum u8 x s8 products in pairs in 16 bits: the static bound, and an exact emulation of the sum."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from strict_nets import master

from edgekd.backends.onnxruntime import X86
from edgekd.backends.openvino import X86 as OPENVINO
from edgekd.errors import ProofFailed
from edgekd.forms import QuantForm
from edgekd.lower import check_lowering, lower
from edgekd.lower.graph import Graph
from edgekd.lower.overflow import overflows

CODES = st.integers(-127, 127)
HALF = replace(X86, weight_range=63)


def multiply_pairs(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """vpmaddubsw (Intel SDM): (N, K) uint8 by (C, K) int8, sums of adjacent pairs saturated to int16, then added."""
    products = activations.astype(np.int64)[:, None] * weights.astype(np.int64)[None]
    if products.shape[2] % 2:
        products = np.pad(products, ((0, 0), (0, 0), (0, 1)))
    pairs = products.reshape(*products.shape[:2], -1, 2).sum(3)
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(2)


def exact(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return activations.astype(np.int64) @ weights.astype(np.int64).T


@given(
    codes=arrays.arrays(np.int8, st.tuples(st.integers(1, 3), st.integers(1, 6)), elements=CODES),
    largest=st.sampled_from([127, 255]),
)
def test_bound_is_brute_force_over_pairs(codes: np.ndarray, largest: int) -> None:
    """Any two weights of a channel may meet, each with an activation from 0 to the largest code."""
    extremes = (0, largest)
    sums = [
        a * int(w) + b * int(v)
        for row in codes
        for w, v in (combinations(row, 2) if len(row) > 1 else [(row[0], 0)])
        for a in extremes
        for b in extremes
    ]
    assert overflows(codes, 0, largest) == (max(sums) > 32767 or min(sums) < -32768)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), largest=st.sampled_from([127, 255]))
def test_within_the_bound_nothing_saturates(data: st.DataObject, largest: int) -> None:
    """Whatever the packing (a permutation of the products) and the activations."""
    codes = data.draw(arrays.arrays(np.int8, (3, 8), elements=CODES))
    activations = data.draw(arrays.arrays(np.uint8, (4, 8), elements=st.integers(0, largest)))
    order = np.array(data.draw(st.permutations(range(8))))
    same = np.array_equal(multiply_pairs(activations[:, order], codes[:, order]), exact(activations, codes))
    assert same or overflows(codes, 0, largest)


def test_channels_on_another_axis() -> None:
    codes = np.array([[127, 1], [1, 1]], np.int8)
    wide = np.array([[127, 2], [127, 1]], np.int8)
    assert not overflows(codes, 0, 255)
    assert not overflows(codes, 1, 255)
    assert overflows(wide, 1, 255)
    assert overflows(np.array([[127, 2]], np.int8), 0, 255)


def int8_weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    graph = Graph(model)
    return {name.removesuffix("_int8"): graph.array(name) for name in graph.constants if name.endswith("_int8")}


def activations(largest: int, count: int) -> np.ndarray:
    """The worst ones: all at their largest code, and noise."""
    random = np.random.default_rng(0)
    return np.concatenate(
        [np.full((1, count), largest, np.uint8), random.integers(0, largest + 1, (40, count)).astype(np.uint8)]
    )


@pytest.mark.parametrize("net", ["resnet-xs", "mobilenet-xs"])
def test_lowered_weights_never_saturate_where_full_range_ones_do(net: str) -> None:
    full, cured = (int8_weights(lower(master(net), form, vnni=False)) for form in (X86, HALF))
    assert full.keys() == cured.keys()
    saturated = 0
    for name, weights in full.items():
        rows, safe = weights.reshape(len(weights), -1), cured[name].reshape(len(weights), -1)
        x = activations(255, rows.shape[1])
        assert np.array_equal(multiply_pairs(x, safe), exact(x, safe)), name
        saturated += not np.array_equal(multiply_pairs(x, rows), exact(x, rows))
        if overflows(weights, 0, 255):
            assert np.abs(safe).max() <= 63
        else:
            assert np.array_equal(weights, cured[name]), "layers within the bound stay as trained"
    assert saturated > len(full) / 2


def test_with_vnni_nothing_is_tightened() -> None:
    full, kept = (int8_weights(lower(master("resnet-xs"), form, vnni=True)) for form in (X86, HALF))
    assert all(np.array_equal(full[name], kept[name]) for name in full)


@pytest.mark.parametrize("form", [HALF, replace(OPENVINO, weight_range=63)], ids=["onnxruntime", "openvino"])
def test_127_codes_spare_the_layers_with_nonnegative_inputs(form: QuantForm) -> None:
    """Signed inputs are unsigned bytes around 128 in every x86 engine, so their layers are tightened all the same."""
    form = replace(form, nonnegative="u8/127")
    model = lower(master("mobilenet-xs-relu6"), form, vnni=False)
    check_lowering(master("mobilenet-xs-relu6"), model, form, vnni=False)
    original = Graph(onnx.load(master("mobilenet-xs-relu6").path))
    signs = {site.tensor: site.sign for site in master("mobilenet-xs-relu6").sites}
    weights, seen = int8_weights(model), set()
    for layer in original.layers():
        site = original.site_of(layer.node.input[0])
        assert site is not None
        sign, rows = signs[site.input[0]], weights[layer.weight].reshape(len(weights[layer.weight]), -1)
        largest = 127 if sign == "nonnegative" else 255
        x = activations(largest, rows.shape[1])
        assert np.array_equal(multiply_pairs(x, rows), exact(x, rows)), layer.weight
        if rows.shape[1] > 1:
            assert np.abs(rows).max() == (127 if sign == "nonnegative" else 63)
            seen.add(sign)
    assert seen == {"nonnegative", "signed"}


def test_tightened_files_pass_the_check_and_stay_near() -> None:
    from strict_nets import prepared, rms, samples

    from edgekd.measure.proof import onnx_run

    model = lower(master("resnet-xs"), HALF, vnni=False)
    check_lowering(master("resnet-xs"), model, HALF, vnni=False)
    with pytest.raises(ProofFailed, match="other weights"):
        check_lowering(master("resnet-xs"), model, HALF, vnni=True)
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / "model.onnx")
        x = samples("resnet-xs", 16).numpy()
        assert rms(onnx_run(Path(folder) / "model.onnx")(x), prepared("resnet-xs").run_float(x)) < 0.04
