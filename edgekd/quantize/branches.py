"""BatchNorm that follows no convolution, and linear branches that meet in a sum: written as convolutions, exactly."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn.utils.fusion import fuse_conv_bn_weights

from edgekd.quantize.attributes import add_parameter, attribute
from edgekd.quantize.operators import WEIGHTED, aten, has_rule


@dataclass
class _Branch:
    """A convolution of ``data`` (of one group of channels or several), its BatchNorm folded."""

    data: Node
    weight: Tensor
    bias: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    groups: int | None  # None: each channel by itself, as any number of groups can express


def part_shared_layers(model: GraphModule) -> None:
    """Layers that a BatchNorm is folded into get parameters of their own where others read them too.

    Where others use the layer's output, the BatchNorm gets a layer of its own.
    """
    readers = Counter(node.target for node in model.graph.nodes if node.op == "get_attr" for _ in node.users)
    for norm in [node for node in model.graph.nodes if node.target == aten.batch_norm.default]:
        source: Node = norm.args[0]
        if source.target not in WEIGHTED:
            continue
        if len(source.users) > 1:
            if source.target == aten.conv2d.default:
                continue  # such a BatchNorm becomes a convolution by itself
            with model.graph.inserting_before(norm):
                own_layer = model.graph.node_copy(source)
            norm.replace_input_with(source, own_layer)
            source = own_layer
            readers.update(one.target for one in source.all_input_nodes[1:])
        for place, kind in ((1, "weight"), (2, "bias")):
            one = source.args[place] if len(source.args) > place else None
            if not isinstance(one, Node) or one.op != "get_attr" or readers[one.target] == 1:
                continue
            with model.graph.inserting_before(source):
                own = add_parameter(model, f"{source.name}_{kind}", attribute(model, one))
            own.meta = dict(one.meta)
            source.update_arg(place, own)
            readers[one.target] -= 1


def merge_branches(model: GraphModule) -> None:
    """``conv(x) + conv(x)`` and ``conv(x) + norm(x)`` become one convolution (RepVGG, Ding et al., CVPR 2021).

    Kernels of different sizes are padded to the larger one; strides and places must agree.
    """
    for node in list(model.graph.nodes):
        if node.target != aten.add.Tensor or node.kwargs.get("alpha", 1) != 1 or len(node.all_input_nodes) != 2:
            continue
        first, second = (_branch(model, one) for one in node.args)  # type: ignore[arg-type]
        merged = _merge(first, second) if first and second else None
        if merged is not None:
            _replace(model, node, merged)


def lone_norms_as_convolutions(model: GraphModule) -> None:
    """A BatchNorm over images that no convolution takes in becomes a depthwise 1x1 convolution (DenseNet)."""
    for node in list(model.graph.nodes):
        if node.target == aten.batch_norm.default and not _folds_into_its_source(node):
            branch = _norm(model, node)
            if branch is not None:
                _replace(model, node, branch)


def _folds_into_its_source(norm: Node) -> bool:
    source: Node = norm.args[0]  # type: ignore[assignment]
    folding = source.target in (aten.conv2d.default, aten.conv1d.default) and has_rule(source)
    return folding and len(source.users) == 1


def _branch(model: GraphModule, node: Node) -> _Branch | None:
    """The node as a convolution of something, where nothing else uses it."""
    if not isinstance(node, Node) or len(node.users) != 1:
        return None
    if node.target == aten.conv2d.default:
        return _convolution(model, node)
    if node.target != aten.batch_norm.default:
        return None
    if not _folds_into_its_source(node):
        return _norm(model, node)
    inner = _convolution(model, node.args[0])  # type: ignore[arg-type]
    if inner is None or not _has_statistics(node):
        return None
    gain, bias, mean, variance, epsilon = _statistics(model, node)
    weight, bias = fuse_conv_bn_weights(inner.weight, inner.bias, mean, variance, epsilon, gain, bias)
    return _Branch(inner.data, weight, bias, inner.stride, inner.padding, inner.groups)


def _convolution(model: GraphModule, node: Node) -> _Branch | None:
    if node.target != aten.conv2d.default:
        return None
    args: Any = (*node.args, *_DEFAULTS[len(node.args) :])
    data, weight, bias, stride, padding, dilation, groups = args
    if list(dilation) != [1, 1] or any(one.op != "get_attr" for one in (weight, bias) if one is not None):
        return None
    values = attribute(model, weight)
    offsets = attribute(model, bias) if bias is not None else torch.zeros(values.shape[0])
    return _Branch(data, values, offsets, _pair(stride), _pair(padding), groups)


_DEFAULTS = (None, None, None, [1, 1], [0, 0], [1, 1], 1)


def _norm(model: GraphModule, node: Node) -> _Branch | None:
    data: Node = node.args[0]  # type: ignore[assignment]
    if len(data.meta["val"].shape) != 4 or not _has_statistics(node):
        return None
    gain, bias, mean, variance, epsilon = _statistics(model, node)
    factor = gain / torch.sqrt(variance + epsilon)
    return _Branch(data, factor.reshape(-1, 1, 1, 1), bias - mean * factor, (1, 1), (0, 0), None)


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


def _merge(first: _Branch, second: _Branch) -> _Branch | None:
    groups = first.groups if first.groups is not None else second.groups
    for one in (first, second):
        if one.data is not first.data or one.stride != first.stride or one.groups not in (None, groups):
            return None
    channels = first.weight.shape[0]
    if second.weight.shape[0] != channels:
        return None
    shared = groups if groups is not None else channels
    weights = [_dense(one, shared) for one in (first, second)]
    # The same place of the image must be in the middle of both kernels.
    middles = {_middle(one) for one in (first, second)}
    sizes = [tuple(one.shape[2:]) for one in weights]
    larger = max(sizes)
    if len(middles) != 1 or any((a - b) % 2 or a < b for size in sizes for a, b in zip(larger, size, strict=True)):
        return None
    total = sum(_padded(one, larger) for one in weights)
    padding = (first if sizes[0] == larger else second).padding
    assert isinstance(total, Tensor)
    return _Branch(first.data, total, first.bias + second.bias, first.stride, padding, groups)


def _middle(branch: _Branch) -> tuple[float, ...]:
    """Where the image's place lies in the kernel, in steps from the kernel's start less its padding."""
    return tuple((size - 1) / 2 - pad for size, pad in zip(branch.weight.shape[2:], branch.padding, strict=True))


def _dense(branch: _Branch, groups: int) -> Tensor:
    """The kernel for that many groups, where it is written as one number a channel."""
    channels = branch.weight.shape[0]
    if branch.groups is not None or groups == channels:
        return branch.weight
    inside = channels // groups
    eye = torch.eye(inside).repeat(groups, 1).reshape(channels, inside, 1, 1)
    return eye * branch.weight


def _padded(weight: Tensor, size: tuple[int, ...]) -> Tensor:
    rows, columns = ((a - b) // 2 for a, b in zip(size, weight.shape[2:], strict=True))
    return nn.functional.pad(weight, (columns, columns, rows, rows))


def _replace(model: GraphModule, node: Node, branch: _Branch) -> None:
    """One convolution in place of ``node``, which stood for ``branch``."""
    groups = branch.groups if branch.groups is not None else branch.weight.shape[0]
    with model.graph.inserting_before(node):
        parts = []
        for kind, value in (("weight", branch.weight), ("bias", branch.bias)):
            parts.append(add_parameter(model, f"{node.name}_{kind}", value))
            parts[-1].meta["val"] = node.meta["val"].new_empty(value.shape)
        args: Any = (branch.data, *parts, list(branch.stride), list(branch.padding), [1, 1], groups)
        new = model.graph.call_function(aten.conv2d.default, args)
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    model.graph.erase_node(node)
    model.graph.eliminate_dead_code()


def _pair(value: object) -> tuple[int, int]:
    found = [value, value] if isinstance(value, int) else list(value)  # type: ignore[call-overload]
    return (found[0], found[-1])
