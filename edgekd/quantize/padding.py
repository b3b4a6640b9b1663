"""Padding as all rules know it: a convolution's in numbers, and zeros behind a ReLU, not between it and its layer."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.fx import GraphModule, Node

from edgekd.quantize.operators import aten, pads_with_zero

_NUMBERED = {aten.conv2d.padding: aten.conv2d.default, aten.conv1d.padding: aten.conv1d.default}


def number_paddings(model: GraphModule) -> None:
    """In place: the same convolutions.

    Where ``"same"`` wants an odd number (kernels of even size), a Pad in front adds the last one, as torch does inside.
    """
    for node in list(model.graph.nodes):
        if node.target not in _NUMBERED:
            continue
        names = [argument.name for argument in node.target._schema.arguments]
        given: dict[str, Any] = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        data, kernel = given["input"], given["weight"].meta["val"].shape[2:]
        stride, dilation = (_each(given.get(name, 1), len(kernel)) for name in ("stride", "dilation"))
        # At both ends together; torch has "same" for strides of 1 alone.
        padding = [0] * len(kernel)
        if given.get("padding") == "same":
            padding = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
        with model.graph.inserting_before(node):
            if any(one % 2 for one in padding):
                data = _padded(model, node, data, [one % 2 for one in padding])
            sizes = (stride, [one // 2 for one in padding], dilation, given.get("groups", 1))
            new = model.graph.call_function(_NUMBERED[node.target], (data, given["weight"], given.get("bias"), *sizes))
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        model.graph.erase_node(node)


def pads_behind_relus(model: GraphModule) -> None:
    """In place: ``relu(pad(x))`` becomes ``pad(relu(x))``, which are the same numbers where zeros are padded.

    The ReLU is then fused into the layer in front, the Pad into the convolution behind (`edgekd.quantize.folded_pads`).
    """
    for node in list(model.graph.nodes):
        pad = node.all_input_nodes[0] if _keeps_zero(node) else None
        # Pads may stand in a row.
        while pad is not None and pads_with_zero(pad) and len(pad.users) == 1:
            data = pad.all_input_nodes[0]
            pad.replace_all_uses_with(data)
            node.replace_all_uses_with(pad)
            pad.replace_input_with(data, node)
            node.append(pad)
            node.meta["val"] = data.meta["val"]
            pad = data


def _keeps_zero(node: Node) -> bool:
    """Whether a node is a ReLU or ReLU6, or clips around zero: a module of ReLU6 is exported as a hardtanh."""
    if node.target == aten.hardtanh.default:
        given: list[Any] = [*node.args[1:]]
        low, high = given + [-1, 1][len(given) :]
        return bool(low <= 0 <= high)
    return node.target in (aten.relu.default, aten.relu6.default)


def _padded(model: GraphModule, node: Node, data: Node, ends: list[int]) -> Node:
    """``data`` with so many zeros behind the end of each of its last dimensions, for the convolution ``node``."""
    # F.pad counts dimensions from the last on.
    sizes = [size for end in reversed(ends) for size in (0, end)]
    padded = model.graph.call_function(aten.pad.default, (data, sizes))
    padded.meta = dict(node.meta) | {"val": nn.functional.pad(data.meta["val"], sizes)}
    return padded


def _each(value: int | list[int], count: int) -> list[int]:
    """A number for each of ``count`` dimensions; torch takes one number for all."""
    given = [value] if isinstance(value, int) else list(value)
    return given * count if len(given) == 1 else given
