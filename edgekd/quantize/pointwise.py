"""Linear layers over the channels of images (N, H, W, C), in the form whose kernels engines fuse (ConvNeXt, Swin).

OpenVINO and ONNX Runtime fuse bias, activation and rounding into convolutions and into products of up to three
dimensions, but not of four. Where a permutation to channels first follows anyway, the layers become 1x1 convolutions in
front of it; else the two sides of the image are taken as one. (Permutations that do not replace others are no option:
OpenVINO 2026.4 computed wrong numbers for some of a LayerNorm's.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node

from edgekd.quantize.attributes import attribute, set_attribute
from edgekd.quantize.operators import ACTIVATIONS, CLIPS, aten

TO_CHANNELS_FIRST, TO_CHANNELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
# One number in, one number out, in any order of dimensions.
ELEMENTWISE = (ACTIVATIONS - {aten.softmax.int, aten.layer_norm.default}) | CLIPS


def fuse_image_linears(model: GraphModule) -> None:
    """In place: every chain of such layers, with the activations between them."""
    seen: set[Node] = set()
    for node in list(model.graph.nodes):
        if node in seen or not _is_image_linear(node):
            continue
        chain = _chain(node)
        seen.update(chain)
        users = list(chain[-1].users)
        if len(users) == 1 and _permutation(users[0]) == TO_CHANNELS_FIRST:
            _as_convolutions(model, chain, users[0])
        else:
            _as_rows(model, chain)


def _is_image_linear(node: Node) -> bool:
    if node.target != aten.linear.default:
        return False
    args: Any = node.args
    data, weight = args[:2]
    return len(data.meta["val"].shape) == 4 and weight.op == "get_attr" and len(weight.users) == 1


def _chain(first: Node) -> list[Node]:
    """From one such layer to the last that follows through nothing but activations."""
    chain, waiting, node = [first], [], first
    while len(node.users) == 1:
        node = next(iter(node.users))
        waiting.append(node)
        if _is_image_linear(node):
            chain, waiting = chain + waiting, []
        elif node.target not in ELEMENTWISE:
            break
    return chain


def _as_convolutions(model: GraphModule, chain: list[Node], exit_permutation: Node) -> None:
    """1x1 convolutions of channels-first images; the permutation behind moves in front."""
    args: Any = chain[0].args
    source = args[0]
    if _permutation(source) == TO_CHANNELS_LAST:
        entry = source.args[0]
    else:
        with model.graph.inserting_before(chain[0]):
            entry = _call(
                model,
                source,
                source.meta["val"].permute(TO_CHANNELS_FIRST),
                aten.permute.default,
                source,
                TO_CHANNELS_FIRST,
            )
    chain[0].replace_input_with(source, entry)
    for node in chain:
        if node.target == aten.linear.default:
            weight: Any = node.args[1]
            set_attribute(model, weight, attribute(model, weight)[..., None, None])
            node.target = aten.conv2d.default
        node.meta = dict(node.meta) | {"val": node.meta["val"].permute(TO_CHANNELS_FIRST)}
    exit_permutation.replace_all_uses_with(chain[-1])
    model.graph.erase_node(exit_permutation)


def _as_rows(model: GraphModule, chain: list[Node]) -> None:
    """Products of three dimensions: (N, H * W, C)."""
    args: Any = chain[0].args
    source, last = args[0], chain[-1]
    sides = list(source.meta["val"].shape[1:3])
    if not all(isinstance(side, int) for side in sides):
        return
    with model.graph.inserting_before(chain[0]):
        rows = _call(model, source, source.meta["val"].flatten(1, 2), aten.flatten.using_ints, source, 1, 2)
    chain[0].replace_input_with(source, rows)
    shape = last.meta["val"]
    for node in chain:
        node.meta = dict(node.meta) | {"val": node.meta["val"].flatten(1, 2)}
    with model.graph.inserting_after(last):
        image = _call(model, last, shape, aten.unflatten.int, last, 1, sides)
    for user in [one for one in last.users if one is not image]:
        user.replace_input_with(last, image)


def _permutation(node: Node) -> list[int] | None:
    if node.target != aten.permute.default:
        return None
    dims: Sequence[int] = node.args[1]  # type: ignore[assignment]
    return [one % len(dims) for one in dims]


def _call(model: GraphModule, like: Node, value: Tensor, target: Any, *args: Any) -> Node:
    new = model.graph.call_function(target, args)
    new.meta = dict(like.meta) | {"val": value}
    return new
