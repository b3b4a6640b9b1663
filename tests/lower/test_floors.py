"""Values that cannot fall below a floor: where it is known, and the codes that it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.backends import get_backend
from edgekd.forms import QuantForm, Site
from edgekd.lower import check_lowering, lower
from edgekd.lower.numbers import site_parameters
from edgekd.quantize import prepare, write_master
from edgekd.runtime.machine import describe_machine
from edgekd.target import load_target

FORMS = {
    "u8": QuantForm("int8", "onnxruntime", signed="u8@128", floors="u8"),
    "s8": QuantForm("int8", "openvino", nonnegative="s8-128", signed="s8", floors="s8"),
}


@given(
    kind=st.sampled_from(sorted(FORMS)),
    scale=st.floats(2**-16, 2**10, width=32),
    floor=st.floats(-1, -(2**-7), width=32),
    share=st.floats(0, 1),
)
def test_every_value_above_the_floor_has_a_code(kind: str, scale: float, floor: float, share: float) -> None:
    written, zero = site_parameters(Site("x", "signed", scale, floor=floor), FORMS[kind])
    lowest, end = max(floor, -127 * scale), 127 * scale
    value = lowest + share * (end - lowest)
    information = np.iinfo(zero.dtype)
    code = np.clip(np.rint(np.float32(value) / written) + int(zero), information.min, information.max)
    # Half a step, which is never wider than the master's.
    assert abs((code - int(zero)) * written - value) <= 0.501 * written + 1e-6 * end
    assert written <= np.float32(scale) * 1.001
    assert information.min <= zero <= information.max


def test_without_the_form_asking_the_range_stays_symmetric() -> None:
    form = QuantForm("int8", "onnxruntime", signed="u8@128")
    assert [float(one) for one in site_parameters(Site("x", "signed", 0.5, floor=-0.3), form)] == [0.5, 128]


class Net(nn.Module):
    """Two convolutions with something between them."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.act, self.one, self.two = act, nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1)
        self.gate = nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.one(x))
        y = F.max_pool2d(y * F.hardsigmoid(self.gate(y)), 2)
        return self.two(y).mean((2, 3))


CASES = {
    "hardswish": (F.hardswish, -0.375),
    "silu": (F.silu, -0.29),
    "gelu": (F.gelu, -0.17),
    "tanh": (torch.tanh, None),
}


@pytest.mark.parametrize("name", CASES)
def test_where_a_floor_is_known(name: str, tmp_path: Path) -> None:
    """Behind the activation, the product with a gate, and the pooling; and the form uses it on both CPU backends."""
    act, floor = CASES[name]
    torch.manual_seed(0)
    net, x = Net(act).eval(), torch.randn(8, 3, 12, 12) * 2
    made = prepare(net, x[:2])
    made.calibrate([x])
    master = write_master(made, x[:2], tmp_path)
    known = [site.tensor for site in master.sites if site.floor is not None]
    assert {site.floor for site in master.sites} == {None, floor}
    assert len(known) == (3 if floor is not None else 0)
    with torch.no_grad():
        wanted = net(x).numpy()
    for backend, target in (("onnxruntime", "onnxruntime-cpu"), ("openvino", "openvino-cpu")):
        place = load_target(target)
        form = get_backend(backend).candidates(place)[0]
        model = lower(master, form, vnni=place.has_vnni())
        check_lowering(master, model, form, vnni=place.has_vnni())
        onnx.save(model, tmp_path / f"{backend}.onnx")
        compiled = get_backend(backend).compile(tmp_path / f"{backend}.onnx", place, tmp_path, form=form)
        assert all(layer.integer for layer in get_backend(backend).coverage(compiled, place))
        found = get_backend(backend).load(compiled, place).run({"input": x.numpy()})["logits"]
        assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def test_openvino_computes_zero_points_of_s8_in_float_on_amx_and_the_coverage_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = Net(F.hardswish).eval(), torch.randn(8, 3, 12, 12)
    made = prepare(net, x[:2])
    made.calibrate([x])
    master, place, backend = write_master(made, x[:2], tmp_path), load_target("openvino-cpu"), get_backend("openvino")
    integer = {}
    for floors in ("s8", "u8"):
        form = replace(backend.candidates(place)[0], floors=floors)
        onnx.save(lower(master, form, vnni=place.has_vnni()), tmp_path / "model.onnx")
        compiled = backend.compile(tmp_path / "model.onnx", place, tmp_path, form=form)
        integer[floors] = [layer.integer for layer in backend.coverage(compiled, place)]
    assert integer["u8"] == [True] * 3
    isa = describe_machine()["isa"]
    if "amx_int8" in isa:
        assert integer["s8"].count(True) < 3
    elif "avx512_vnni" in isa:
        assert integer["s8"] == [True] * 3


def test_what_is_concatenated_has_no_floor(tmp_path: Path) -> None:
    class Joined(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = self.one(x)
            return self.two(torch.cat([F.hardswish(y)[:, :8], y[:, 8:]], 1)).mean((2, 3))

    x = torch.randn(4, 3, 8, 8)
    made = prepare(Joined(F.relu).eval(), x[:2])
    made.calibrate([x])
    assert {site.floor for site in write_master(made, x[:2], tmp_path).sites} == {None}
