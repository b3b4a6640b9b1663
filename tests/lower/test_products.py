"""Products of two activations without VNNI: what could saturate stays in float, by exact emulation and real kernels."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow_cpu import has_vnni, run_jobs
from pair_sums import exact, multiply_pairs
from strict_nets import rms
from test_cures import FORMS
from torch import Tensor, nn

from edgekd.errors import ProofFailed
from edgekd.forms import Master, QuantForm
from edgekd.lower import check_lowering, lower
from edgekd.lower.graph import Graph
from edgekd.lower.overflow import product_saturates, softmax_pair_codes
from edgekd.measure.proof import onnx_run
from edgekd.quantize import prepare, write_master

EMULATED = [pytest.mark.slow] if has_vnni() else []


class Attention(nn.Module):
    """One head over 16 vectors of 32, no other layer than the last; ``shared``: every factor is the input itself."""

    def __init__(self, *, shared: bool = False) -> None:
        super().__init__()
        self.shared, self.head = shared, nn.Linear(32, 4)
        self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (x, x, x) if self.shared else (self.q(x), self.k(x), self.v(x))
        scores = q @ k.transpose(1, 2)
        y = torch.softmax(scores / 6, 2) @ v
        return self.head((y + x).mean(1))


class Fused(nn.Module):
    """Two heads whose query, key and value are one layer's, taken apart as ViT does or in ``chunks``."""

    def __init__(self, *, chunks: bool = False) -> None:
        super().__init__()
        self.chunks, self.qkv, self.head = chunks, nn.Linear(32, 96), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.chunks:
            q, k, v = (part.unflatten(2, (2, 16)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2))
        else:
            q, k, v = self.qkv(x).unflatten(2, (3, 2, 16)).permute(2, 0, 3, 1, 4).unbind(0)
        y = torch.softmax(q @ k.transpose(2, 3) / 4, 3) @ v
        return self.head((y.transpose(1, 2).flatten(2) + x).mean(1))


@cache
def master(*, shared: bool = False) -> Master:
    return master_of(lambda: Attention(shared=shared))


@cache
def fused(*, chunks: bool) -> Master:
    return master_of(lambda: Fused(chunks=chunks))


def master_of(make: Callable[[], nn.Module]) -> Master:
    torch.manual_seed(0)
    made = prepare(make().eval(), samples()[:2])
    made.calibrate(samples().split(8))
    _kept.append(tempfile.TemporaryDirectory(prefix="edgekd-products-"))
    return write_master(made, samples()[:2], Path(_kept[-1].name))


def samples(seed: int = 1) -> Tensor:
    """Of few values that are all large: codes near both ends."""
    return torch.randn(16, 16, 32, generator=torch.Generator().manual_seed(seed)).sign()


_kept: list[tempfile.TemporaryDirectory] = []


def integer_products(model: onnx.ModelProto) -> list[str]:
    graph = Graph(model)
    return [
        node.output[0]
        for node in model.graph.node
        if node.op_type == "MatMul"
        and len(graph.data_inputs(node)) == 2
        and all(graph.is_quantized(name) for name in node.input)
    ]


def lowered(one: Master, form: QuantForm, *, vnni: bool = False) -> onnx.ModelProto:
    model = lower(one, form, vnni=vnni)
    check_lowering(one, model, form, vnni=vnni)
    return model


@settings(max_examples=100, deadline=None)
@given(pair=st.integers(0, 510), data=st.data())
def test_a_product_saturates_as_told(pair: int, data: st.DataObject) -> None:
    """Two neighbours of at most ``pair`` together, against signed codes: sharp."""
    first = data.draw(st.integers(max(0, pair - 255), min(255, pair)))
    x = np.array([[first, pair - first]], np.uint8)
    ends = np.array([[127, 127], [-128, -128], [127, -128]], np.int8)
    assert np.array_equal(multiply_pairs(x, ends), exact(x, ends)) is not product_saturates(pair)


@settings(max_examples=200, deadline=None)
@given(
    reach=st.floats(1 / 64, 1),
    scores=st.lists(st.floats(-30, 30), min_size=2, max_size=8),
)
def test_two_codes_of_a_softmax(reach: float, scores: list[float]) -> None:
    """Whatever its scale, and wherever in the row the two stand."""
    scale = np.float32(np.float32(reach) / np.float32(255))
    values = np.exp(np.array(scores, np.float32) - np.float32(max(scores)))
    values = (values / values.sum()).astype(np.float32)
    codes = np.sort(np.clip(np.rint(values / scale), 0, 255))
    assert codes[-2:].sum() <= softmax_pair_codes(float(scale))


def test_one_half_each_is_the_most_that_a_whole_range_gives() -> None:
    """Two codes of 128, within the bound to the last one; a range of 0.99 is beyond."""
    assert softmax_pair_codes(float(np.float32(1 / 255))) == 256
    assert not product_saturates(256)
    assert product_saturates(softmax_pair_codes(0.99 / 255))


def test_openvino_leaves_them_in_float() -> None:
    form = FORMS["openvino"]
    assert integer_products(lowered(master(), form, vnni=True)) == ["matmul", "matmul_1"]
    assert integer_products(lowered(master(), form)) == []
    assert integer_products(lowered(master(shared=True), form)) == []
    assert integer_products(lowered(master(), replace(form, cure="none"))) == ["matmul", "matmul_1"]


def whole_range(one: Master) -> Master:
    """The softmax in codes of [0, 1]: its product cannot saturate."""
    sites = tuple(replace(site, scale=1 / 127) if site.tensor.startswith("softmax") else site for site in one.sites)
    assert sites != one.sites
    return replace(one, sites=sites)


def test_a_softmax_over_the_whole_range_stays_integer() -> None:
    model = lowered(whole_range(master()), FORMS["openvino"])
    assert integer_products(model) == ["matmul_1"]


@pytest.mark.parametrize("chunks", [False, True])
def test_one_layer_for_query_key_and_value(chunks: bool) -> None:
    """Two of three are moved in float: the value is quantized behind what takes them apart, where it is integer."""
    one, form = fused(chunks=chunks), FORMS["openvino"]
    assert integer_products(lowered(one, form, vnni=True)) == ["matmul", "matmul_1"]
    assert integer_products(lowered(one, form)) == []
    model = lowered(whole_range(one), form)
    assert integer_products(model) == ["matmul_1"]
    graph = Graph(model)
    weights = {name for name in graph.constants if name.endswith("_int8")}
    assert weights == {"qkv.weight_int8", "head.weight_int8"}


def test_onnxruntime_multiplies_unsigned_codes_exactly() -> None:
    assert integer_products(lowered(master(), FORMS["onnxruntime"])) == ["matmul", "matmul_1"]


def test_the_check_finds_one_that_was_left() -> None:
    model = lower(master(), replace(FORMS["openvino"], cure="none"), vnni=False)
    with pytest.raises(ProofFailed, match=r"an integer product at matmul.*, which could saturate"):
        check_lowering(master(), model, FORMS["openvino"], vnni=False)


@pytest.mark.parametrize(
    ("runtime", "isa"),
    [
        ("openvino", "AVX2"),
        ("openvino", "AVX512_CORE"),
        pytest.param("onnxruntime", "AVX2", marks=EMULATED),
    ],
)
def test_real_kernels(runtime: str, isa: str, tmp_path: Path) -> None:
    """Without weights in the way: every factor is the input, the last layer is in float. OpenVINO saturates uncured."""
    one, x = master(shared=True), samples(seed=2).numpy()
    form = replace(FORMS[runtime], float_groups=frozenset({"last"}))
    files = {"uncured": lowered(one, replace(form, cure="none")), "cured": lowered(one, form)}
    for name, model in files.items():
        onnx.save(model, tmp_path / f"{name}.onnx")
        np.save(tmp_path / f"{name}.npy", x)
    outputs = run_jobs(runtime, isa, tmp_path)
    error = {name: rms(outputs[name], onnx_run(tmp_path / f"{name}.onnx")(x)) for name in files}
    assert error["cured"] < 0.01, error
    assert (error["uncured"] > 0.03) is (runtime == "openvino"), error


def test_real_kernels_where_one_layer_makes_query_key_and_value(tmp_path: Path) -> None:
    one, x = whole_range(fused(chunks=False)), samples(seed=2).numpy()
    onnx.save(lowered(one, FORMS["openvino"]), tmp_path / "cured.onnx")
    np.save(tmp_path / "cured.npy", x)
    error = rms(run_jobs("openvino", "AVX2", tmp_path)["cured"], onnx_run(tmp_path / "cured.onnx")(x))
    assert error < 0.01
