"""A convolution with its BatchNorm, or a BatchNorm alone, as one linear operator: read from a graph, and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn.utils.fusion import fuse_conv_bn_weights

from edgekd.quantize.attributes import add_parameter, attribute
from edgekd.quantize.operators import aten, has_rule


@dataclass(frozen=True)
class Branch:
    """A convolution of ``data`` (of one group of channels or several), its BatchNorm folded.

    ``weight`` is (out, in / groups, rows, columns), ``bias`` (out,); ``padding`` and ``stride`` are of rows, columns.
    """

    data: Node
    weight: Tensor
    bias: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    groups: int | None  # None: each channel by itself, as any number of groups can express


def branch_of(model: GraphModule, node: Node) -> Branch | None:
    """The node as a convolution of something, where it is one and nothing else uses it."""
    if len(node.users) != 1:
        return None
    if node.target == aten.conv2d.default:
        return _convolution(model, node)
    if node.target != aten.batch_norm.default:
        return None
    if not folds_into_its_source(node):
        return norm_branch(model, node)
    inner = _convolution(model, node.args[0])  # type: ignore[arg-type]
    if inner is None or not _has_statistics(node):
        return None
    gain, bias, mean, variance, epsilon = _statistics(model, node)
    weight, bias = fuse_conv_bn_weights(inner.weight, inner.bias, mean, variance, epsilon, gain, bias)
    return Branch(inner.data, weight, bias, inner.stride, inner.padding, inner.groups)


def norm_branch(model: GraphModule, node: Node) -> Branch | None:
    """A BatchNorm over images by itself."""
    data: Node = node.args[0]  # type: ignore[assignment]
    if len(data.meta["val"].shape) != 4 or not _has_statistics(node):
        return None
    gain, bias, mean, variance, epsilon = _statistics(model, node)
    factor = gain / torch.sqrt(variance + epsilon)
    return Branch(data, factor.reshape(-1, 1, 1, 1), bias - mean * factor, (1, 1), (0, 0), None)


def folds_into_its_source(norm: Node) -> bool:
    """Whether a BatchNorm becomes part of the convolution in front of it."""
    source: Node = norm.args[0]  # type: ignore[assignment]
    folding = source.target in (aten.conv2d.default, aten.conv1d.default) and has_rule(source)
    return folding and len(source.users) == 1


def write_branch(model: GraphModule, branch: Branch, like: Node) -> Node:
    """A convolution in front of ``like``, whose name, shape and origin it takes; a bias of zeros is none."""
    groups = branch.groups if branch.groups is not None else branch.weight.shape[0]
    with model.graph.inserting_before(like):
        parts: list[Node | None] = []
        for kind, value in (("weight", branch.weight), ("bias", branch.bias)):
            if kind == "bias" and not value.any():
                parts.append(None)
                continue
            parameter = add_parameter(model, f"{like.name}_{kind}", value)
            parameter.meta["val"] = like.meta["val"].new_empty(value.shape)
            parts.append(parameter)
        args: Any = (branch.data, *parts, list(branch.stride), list(branch.padding), [1, 1], groups)
        new = model.graph.call_function(aten.conv2d.default, args)
    new.meta = dict(like.meta)
    return new


def _convolution(model: GraphModule, node: Node) -> Branch | None:
    if node.target != aten.conv2d.default:
        return None
    args: Any = (*node.args, *_DEFAULTS[len(node.args) :])
    data, weight, bias, stride, padding, dilation, groups = args
    if list(dilation) != [1, 1] or any(one.op != "get_attr" for one in (weight, bias) if one is not None):
        return None
    values = attribute(model, weight)
    offsets = attribute(model, bias) if bias is not None else values.new_zeros(values.shape[0])
    return Branch(data, values, offsets, _pair(stride), _pair(padding), groups)


_DEFAULTS = (None, None, None, [1, 1], [0, 0], [1, 1], 1)


def _has_statistics(norm: Node) -> bool:
    """Whether a BatchNorm computes with kept numbers, rather than with those of the batch or computed ones."""
    mean, variance, training = norm.args[3:6]
    parameters = [one for one in norm.args[1:3] if one is not None]
    return not training and all(isinstance(one, Node) and one.op == "get_attr" for one in (*parameters, mean, variance))


def _statistics(model: GraphModule, node: Node) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """Gain, bias, mean, variance, epsilon: what evaluation computes with."""
    args: Any = node.args
    _, gain, bias, mean, variance, _, _, epsilon, *_ = args
    average, spread = attribute(model, mean), attribute(model, variance)
    return (
        torch.ones_like(spread) if gain is None else attribute(model, gain),
        torch.zeros_like(spread) if bias is None else attribute(model, bias),
        average,
        spread,
        float(epsilon),
    )


def _pair(value: object) -> tuple[int, int]:
    found = [value, value] if isinstance(value, int) else list(value)  # type: ignore[call-overload]
    return (found[0], found[-1])
