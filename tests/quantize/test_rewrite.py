"""The rewrites before quantization: the same function, in the operators that are wanted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rewritten_nets import RANDOM, Net, conv, norm, rewritten
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import BadModel
from edgekd.quantize import prepare
from edgekd.quantize.branches import merge_branches
from edgekd.quantize.prepared import Prepared
from edgekd.quantize.weighted import layers


@pytest.mark.parametrize("groups", [1, 2])
def test_branches_of_repvgg_are_one_convolution(groups: int) -> None:
    three, one = conv(8, 8, 3, groups=groups, bias=False), conv(8, 8, 1, groups=groups, bias=False)
    net = Net(
        lambda m, x: m.end(F.relu(m.n3(m.three(x)) + m.n1(m.one(x)) + m.n0(x))),
        three=three, one=one, n3=norm(8), n1=norm(8), n0=norm(8), end=conv(8, 4, 1),
    )  # fmt: skip
    _, found = rewritten(net, 8, 9, 9)
    assert (found["conv2d"], found["add"], found["batch_norm"]) == (2, 0, 0)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_branches_keep_the_type_of_their_weights(kind: torch.dtype) -> None:
    net = Net(
        lambda m, x: m.n(m.a(x)) + m.b(x) + m.k(x),
        a=conv(4, 4, 3, bias=False), b=conv(4, 4, 1, bias=False), n=norm(4), k=norm(4),
    )  # fmt: skip
    net, x = net.eval().to(kind), torch.ones(2, 4, 6, 6, dtype=kind)
    graph = torch.export.export(net, (x,)).module()
    assert merge_branches(graph, rounded=False) == 1
    graph.recompile()
    with torch.no_grad():
        torch.testing.assert_close(graph(x), net(x), rtol=0, atol=16 * torch.finfo(kind).eps)


@pytest.mark.parametrize("first", ["identity", "convolutions"])
def test_a_wide_identity_stays_beside_the_convolution(first: str) -> None:
    """Without its shift, which is in the convolution's bias; whatever order they are added in."""
    three, one, wide = conv(64, 64, 3, bias=False), conv(64, 64, 1, bias=False), norm(64)
    wide.weight.data.mul_(10)
    add = {
        "identity": lambda m, x: m.wide(x) + m.n3(m.three(x)) + m.one(x),
        "convolutions": lambda m, x: m.n3(m.three(x)) + m.one(x) + m.wide(x),
    }[first]
    parts = {"three": three, "one": one, "n3": norm(64), "wide": wide, "start": conv(4, 64, 1), "end": conv(64, 4, 1)}
    made, found = rewritten(Net(lambda m, x: m.end(F.relu(add(m, F.relu(m.start(x))))), **parts), 4, 9, 9)
    assert (found["conv2d"], found["add"], found["batch_norm"]) == (4, 1, 0)
    identity = next(layer for layer in layers(made.module) if layer.groups == 64)
    assert identity.bias is None
    x = torch.randn(8, 4, 9, 9)
    made.calibrate([x])
    outputs, wanted = made.run_quantized(x.numpy()), made.run_float(x.numpy())
    # Merged: 27 dB.
    assert np.square(wanted).sum() > 1e3**1.2 * np.square(outputs - wanted).sum()


def test_rows_of_zeros_do_not_tell_whether_an_identity_is_wide() -> None:
    """A pruned channel's row holds the identity's weight alone, which rounds to itself in either way."""
    three, flat = conv(64, 64, 3, bias=False), norm(64)
    three.weight.data.normal_(generator=RANDOM)[:, 0, 0, 0] = 40  # wide by itself: 26 dB
    three.weight.data[:8] = 0
    flat.weight.data.mul_(0.1)
    parts = {"three": three, "flat": flat, "start": conv(4, 64, 1), "end": conv(64, 4, 1)}
    net = Net(lambda m, x: m.end(F.relu(m.three(y := F.relu(m.start(x))) + m.flat(y))), **parts)
    _, found = rewritten(net, 4, 9, 9)
    assert (found["conv2d"], found["add"]) == (3, 0)


@pytest.mark.parametrize("odd", ["stride", "dilation", "groups", "input"])
def test_branches_that_see_something_else_stay(odd: str) -> None:
    second = {
        "stride": lambda m, x: m.b(x)[:, :, ::2, ::2],
        "dilation": lambda m, x: m.d(x),
        "groups": lambda m, x: m.g(x),
        "input": lambda m, x: m.b(x * 2),
    }[odd]
    first = (lambda m, x: m.s(x)) if odd == "stride" else (lambda m, x: m.a(x))
    net = Net(
        lambda m, x: first(m, x) + second(m, x),
        a=conv(4, 4, 3), b=conv(4, 4, 3), s=conv(4, 4, 3, stride=2),
        d=nn.Conv2d(4, 4, 3, padding=2, dilation=2), g=conv(4, 4, 3, groups=2),
    )  # fmt: skip
    _, found = rewritten(net, 4, 8, 8)
    assert found["conv2d"] == 2
    assert found["add"] == 1


def test_a_lone_norm_is_a_depthwise_convolution() -> None:
    net = Net(lambda m, x: m.b(F.relu(m.n(torch.cat([x, m.a(x)], 1)))), a=conv(4, 4, 3), n=norm(8), b=conv(8, 4, 1))
    made, found = rewritten(net, 4, 8, 8)
    assert (found["conv2d"], found["batch_norm"]) == (3, 0)
    assert sorted(node.args[6] for node in made.module.graph.nodes if node.name.endswith("default") and node.args[6:])


def test_concatenated_values_share_a_scale() -> None:
    net = Net(
        lambda m, x: m.b(torch.cat([y := F.relu(m.a(x)), F.relu(m.c(y))], 1)),
        a=conv(4, 4, 3), c=conv(4, 4, 1), b=conv(8, 4, 1),
    )  # fmt: skip
    made, _ = rewritten(net, 4, 8, 8)
    made.calibrate([torch.randn(4, 4, 8, 8)])
    scales = {node.name: _scale(made, node) for node in made.module.graph.nodes if _scale(made, node) is not None}
    behind = [
        scales[user.name]
        for node in made.module.graph.nodes
        if node.name.startswith(("relu", "cat"))
        for user in node.users
    ]
    assert len(behind) == 3
    assert len(set(behind)) == 1


def _scale(made: Prepared, node: torch.fx.Node) -> float | None:
    if node.op != "call_module":
        return None
    module = made.module.get_submodule(str(node.target))
    return module.calculate_qparams()[0].flatten()[0].item() if hasattr(module, "calculate_qparams") else None


@pytest.mark.parametrize("last", [False, True])
def test_layer_scale_is_in_the_weights(last: bool) -> None:
    gamma = nn.ParameterDict({"g": nn.Parameter(torch.rand(1, 6, 1, 1) + 0.5)})
    turn = (lambda y: y.permute(0, 2, 3, 1).permute(0, 3, 1, 2)) if last else (lambda y: y)
    net = Net(lambda m, x: x + m.gamma["g"] * turn(m.n(m.a(x))), a=conv(6, 6, 3, bias=False), n=norm(6), gamma=gamma)
    _, found = rewritten(net, 6, 8, 8)
    assert found["mul"] == 0


def test_a_scale_that_another_value_needs_stays() -> None:
    gamma = nn.ParameterDict({"g": nn.Parameter(torch.rand(6, 1, 1) + 0.5)})
    net = Net(lambda m, x: m.gamma["g"] * (y := m.a(x)) + y, a=conv(6, 6, 3), gamma=gamma)
    _, found = rewritten(net, 6, 8, 8)
    assert found["mul"] == 1


def test_linear_layers_of_images_are_convolutions_where_channels_come_first_again() -> None:
    def block(m: nn.Module, x: Tensor) -> Tensor:
        y = m.ln(m.a(x).permute(0, 2, 3, 1))
        return x + m.two(F.gelu(m.one(y))).permute(0, 3, 1, 2)

    net = Net(block, a=conv(6, 6, 3), ln=nn.LayerNorm(6), one=nn.Linear(6, 12), two=nn.Linear(12, 6))
    _, found = rewritten(net, 6, 8, 8)
    assert (found["conv2d"], found["linear"], found["permute"]) == (3, 0, 2)


def test_other_linear_layers_of_images_have_three_dimensions() -> None:
    net = Net(
        lambda m, x: (y := x.permute(0, 2, 3, 1)) + m.two(F.gelu(m.one(m.ln(y)))),
        ln=nn.LayerNorm(6), one=nn.Linear(6, 12), two=nn.Linear(12, 6),
    )  # fmt: skip
    made, found = rewritten(net, 6, 8, 4)
    assert (found["linear"], found["flatten"], found["unflatten"]) == (2, 2, 1)
    assert {len(node.meta["val"].shape) for node in made.module.graph.nodes if "linear" in node.name} == {3}


@pytest.mark.parametrize("spelled", ["view", "shuffle"])
def test_a_channel_shuffle_is_one_gathering(spelled: str) -> None:
    def shuffle(x: Tensor) -> Tensor:
        if spelled == "shuffle":
            return F.channel_shuffle(x, 2)
        b, c, h, w = x.size()
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)

    net = Net(lambda m, x: m.b(shuffle(F.relu(m.a(x))).chunk(2, dim=1)[1]), a=conv(6, 8, 3), b=conv(4, 4, 1))
    _, found = rewritten(net, 6, 8, 8)
    assert (found["index_select"], found["transpose"], found["view"]) == (1, 0, 0)


@pytest.mark.parametrize("mask", [False, True])
def test_attention_is_spelled_out(mask: bool) -> None:
    def attend(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = m.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        hidden = torch.linspace(-1, 1, 25).reshape(5, 5) if mask else None
        return m.out(F.scaled_dot_product_attention(q, k, v, attn_mask=hidden).transpose(1, 2).flatten(2))

    _, found = rewritten(Net(attend, qkv=nn.Linear(8, 24), out=nn.Linear(8, 8)), 5, 8)
    assert (found["matmul"], found["softmax"], found["scaled_dot_product_attention"]) == (2, 1, 0)


def test_causal_attention_stays() -> None:
    net = Net(
        lambda m, x: F.scaled_dot_product_attention(m.q(x), m.q(x), x, is_causal=True), q=nn.Linear(8, 8)
    )  # fmt: skip
    _, found = rewritten(net, 5, 8)
    assert found["scaled_dot_product_attention"] == 1


def test_masks_that_are_made_at_each_call_are_constants() -> None:
    def masked(m: nn.Module, x: Tensor) -> Tensor:
        mask = x.new_zeros((4, 4))
        mask[:2, 2:] = -5
        mask[2:, :2] = 3
        return m.a(x) + mask.masked_fill(mask == 3, 1.0)

    _, found = rewritten(Net(masked, a=conv(3, 3, 3)), 3, 4, 4)
    assert not {"new_zeros", "fill_", "masked_fill", "slice"} & set(found)


def test_silu_and_idle_operators() -> None:
    net = Net(
        lambda m, x: m.b(m.drop(F.pad(F.silu(m.a(x)), (0, 0, 0, 0)))),
        a=conv(3, 4, 3), drop=nn.Dropout(0.5), b=conv(4, 4, 1),
    )  # fmt: skip
    _, found = rewritten(net, 3, 8, 8)
    assert (found["sigmoid"], found["mul"], found["silu"], found["pad"], found["dropout"]) == (1, 1, 0, 0, 0)


def test_sums_that_begin_with_zero() -> None:
    """As MobileOne's do: nothing is added, and its branches are one convolution."""
    net = Net(lambda m, x: sum(layer(x) for layer in (m.a, m.b)) * 1, a=conv(3, 4, 3), b=conv(3, 4, 1))
    _, found = rewritten(net, 3, 8, 8)
    assert (found["conv2d"], found["add"], found["mul"]) == (1, 0, 0)
    whole = Net(lambda m, x: m.a(x) + (x.argmax(1, keepdim=True) + 0.0), a=conv(3, 4, 3))
    _, found = rewritten(whole, 3, 8, 8)
    assert found["add"] == 2, "it makes floats of integers"


def test_what_is_written_after_its_use_is_seen_as_it_was() -> None:
    def late(m: nn.Module, x: Tensor) -> Tensor:
        shift = torch.zeros(4)
        y = m.a(x) + shift
        shift.add_(1)
        return y * 1.5 + shift

    rewritten(Net(late, a=conv(3, 3, 3)), 3, 4, 4)


def test_constants_are_of_the_type_of_what_they_are_made_like() -> None:
    net = Net(lambda m, x: m.a(x) + x.argmax(1, keepdim=True).new_full((4,), 3) // 2, a=conv(3, 3, 3))
    rewritten(net, 3, 4, 4)


def test_what_the_input_is_written_into_is_no_constant() -> None:
    def written(m: nn.Module, x: Tensor) -> Tensor:
        y = x.new_zeros((4, 4))
        y[:2] = x[0, 0, :2]
        return m.a(x) + y

    with pytest.raises(BadModel, match="memory that other values share"):
        prepare(Net(written, a=conv(3, 3, 3)), torch.randn(2, 3, 4, 4))


@pytest.mark.parametrize("tied", [False, True])
def test_a_shared_convolution_takes_in_each_norm_by_itself(tied: bool) -> None:
    net = Net(
        lambda m, x: m.n(m.a(x)) + m.k((m.b if tied else m.a)(x * 2)) + m.b(x * 3),
        a=conv(4, 4, 3), b=conv(4, 4, 3), n=norm(4), k=norm(4),
    )  # fmt: skip
    net.b.weight = net.a.weight
    _, found = rewritten(net, 4, 6, 6)
    assert found["batch_norm"] == 0


def test_a_layer_that_others_need_keeps_its_output_without_the_norm() -> None:
    flat = nn.BatchNorm1d(4)
    flat.running_mean.normal_(generator=RANDOM)
    net = Net(lambda m, x: m.n(y := m.a(x)) + y, a=nn.Conv1d(4, 4, 3, padding=1), n=flat)
    rewritten(net, 4, 6)


def test_names_that_the_network_has_are_not_taken() -> None:
    net = Net(lambda m, x: (m.a(x) + m.b(x)) * m.add_bias.sum(), a=conv(4, 4, 3), b=conv(4, 4, 1))
    net.add_bias = nn.Parameter(torch.rand(4))
    made, found = rewritten(net, 4, 6, 6)
    assert found["conv2d"] == 1
    assert torch.equal(made.module.add_bias, net.add_bias)


def test_a_change_of_shape_that_splits_the_batch_is_no_shuffle() -> None:
    def other(m: nn.Module, x: Tensor) -> Tensor:
        y = m.a(x)
        b, c, h, w = y.shape
        return m.e(y.view(-1, 2, 3, h, w).transpose(1, 2).reshape(b, c, h, w))

    rewritten(Net(other, a=conv(3, 12, 3), e=conv(12, 2, 1)), 3, 4, 4)


def test_writing_into_a_part_of_what_is_used_again_is_refused() -> None:
    def written(m: nn.Module, x: Tensor) -> Tensor:
        y = m.a(x)
        part = y.unflatten(1, (2, 2))
        part.relu_()
        return m.e(y + part.flatten(1, 2))

    with pytest.raises(BadModel, match="memory that other values share"):
        prepare(Net(written, a=conv(3, 4, 3), e=conv(4, 2, 1)), torch.randn(2, 3, 4, 4))


@pytest.mark.parametrize("spelled", ["attention", "sum", "fill", "where"])
def test_scores_that_are_hidden_leave_the_others_their_codes(spelled: str) -> None:
    causal = torch.full((5, 5), float("-inf")).triu(1)

    def attend(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = m.qkv(x).chunk(3, -1)
        if spelled == "attention":
            return m.out(F.scaled_dot_product_attention(q, k, v, attn_mask=causal.clone()))
        scores = q @ k.transpose(-1, -2) / 3
        hidden = {
            "sum": lambda: scores + causal.clone(),
            "fill": lambda: scores.masked_fill(m.ones["m"] == 0, float("-inf")),
            "where": lambda: torch.where(m.ones["m"] > 0, scores, float("-inf")),
        }[spelled]()
        return m.out(hidden.softmax(-1) @ v)

    ones = nn.ParameterDict({"m": nn.Parameter(torch.ones(5, 5).tril(), requires_grad=False)})
    made, _ = rewritten(Net(attend, qkv=nn.Linear(8, 24), out=nn.Linear(8, 8), ones=ones), 5, 8)
    x = torch.randn(16, 5, 8)
    made.calibrate([x])
    scales = [float(quantizer.scale.max()) for _, quantizer in made.quantizers()]
    assert max(scales) < 0.2
    wanted = made.run_float(x.numpy())
    assert np.abs(made.run_quantized(x.numpy()) - wanted).max() < 0.1 * np.abs(wanted).max()
