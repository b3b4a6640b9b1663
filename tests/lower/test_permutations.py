"""Permutations of channels in front of a convolution, in OpenVINO: the right numbers, and channels last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered_nets import forms_of, target_of
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.backends import get_backend
from edgekd.errors import ProofFailed
from edgekd.forms import Master
from edgekd.lower import check_lowering, lower
from edgekd.lower.permutations import _shuffled_groups
from edgekd.measure.proof import onnx_run
from edgekd.quantize import export_float, prepare, write_master

CHANNELS = 12
# Not its own inverse, and no shuffle.
TURNED = [*range(1, CHANNELS), 0]


class Net(nn.Module):
    """Two convolutions, with what moves channels between them."""

    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.move = move
        self.one, self.two = nn.Conv2d(3, CHANNELS, 3), nn.Conv2d(CHANNELS, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.two(self.move(torch.relu(self.one(x))))).mean((2, 3))


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "shuffled by 2": lambda x: F.channel_shuffle(x, 2),
    "shuffled by 3": lambda x: F.channel_shuffle(x, 3),
    "turned": lambda x: x.index_select(1, torch.tensor(TURNED)),
}


def made(move: str, folder: Path) -> tuple[Master, np.ndarray]:
    torch.manual_seed(0)
    net, x = Net(MOVES[move]).eval(), torch.randn(8, 3, 8, 8)
    prepared = prepare(net, x[:2])
    prepared.calibrate([x])
    export_float(net, x[:2], folder / "float.onnx")
    return write_master(prepared, x[:2], folder), x.numpy()


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("name", ["int8", "float"])
def test_the_runtime_computes_them(move: str, name: str, tmp_path: Path) -> None:
    """It gathers the next convolution's weights by the wrong order when it is left a plain Gather."""
    master, x = made(move, tmp_path)
    form, target, backend = forms_of("openvino")[name], target_of("openvino"), get_backend("openvino")
    start = master if form.integer else Master(tmp_path / "float.onnx", ())
    model = lower(start, form, vnni=target.has_vnni())
    if form.integer:
        check_lowering(master, model, form, vnni=target.has_vnni())
    onnx.save(model, tmp_path / "model.onnx")
    wanted = onnx_run(tmp_path / "model.onnx")(x)
    compiled = backend.compile(tmp_path / "model.onnx", target, tmp_path, form=form)
    found = backend.load(compiled, target).run({"input": x})["logits"]
    # A step of rounding where there are integers; another order of channels is as far off as the numbers are large.
    assert np.abs(found - wanted).max() <= (0.03 if form.integer else 1e-4) * np.abs(wanted).max()
    moved = "ShuffleChannels" if "shuffled" in move else "Gather"
    assert [layer.op for layer in backend.other_layers(compiled, target)].count(moved) == 1


@pytest.mark.parametrize("move", MOVES)
def test_another_permutation_is_refused(move: str, tmp_path: Path) -> None:
    master, _ = made(move, tmp_path)
    form = forms_of("openvino")["int8"]
    model = lower(master, form)
    check_lowering(master, model, form)
    if move == "turned":
        (node,) = (node for node in model.graph.node if node.op_type == "Gather")
        (order,) = (tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
        order.CopyFrom(onnx.numpy_helper.from_array(np.roll(onnx.numpy_helper.to_array(order), 1), order.name))
    else:
        (shape,) = (tensor for tensor in model.graph.initializer if tensor.name.endswith("_split_shape"))
        _, groups, size, *image = onnx.numpy_helper.to_array(shape)
        turned = np.array([0, size, groups, *image], np.int64)
        shape.CopyFrom(onnx.numpy_helper.from_array(turned, shape.name))
    with pytest.raises(ProofFailed):
        check_lowering(master, model, form)


@given(st.integers(2, 8), st.integers(2, 8))
@settings(deadline=None)
def test_shuffles_are_known_by_their_groups(groups: int, size: int) -> None:
    channels = groups * size
    order = torch.arange(channels).view(groups, size).T.reshape(-1).numpy()
    assert _shuffled_groups(order, [0, channels, 4, 4]) == groups
    order[[1, 2]] = order[[2, 1]]
    assert _shuffled_groups(order, [0, channels, 4, 4]) is None
