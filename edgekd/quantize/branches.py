"""Linear branches of one input that meet in a sum become one convolution, exactly; in integers where it rounds well.

RepVGG (Ding et al., CVPR 2021) and its like (MobileOne) are trained with branches and run with one kernel. What the
identity adds to the middle of a dense kernel is far larger than the other weights, which share its scale: in a
RepVGG-A0 that was trained for minutes the merged weights' noise brought the logits from 30 to 10 dB (and see Chu et
al., "Make RepVGG Greater Again", 2022). Such an identity stays beside the convolution, as a factor a channel.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgekd.quantize.branch import Branch, branch_of, write_branch
from edgekd.quantize.operators import aten

# Signal over noise of rounded weights in dB, mean over a layer's rows: enough is as without a wide branch (35); what
# branches by themselves have to gain for the time of a kernel more.
ENOUGH_DB, WORTH_DB = 30.0, 6.0
CODES = 127


def merge_branches(model: GraphModule, *, rounded: bool) -> int:
    """In place: sums of convolutions and BatchNorms of one input, with as few convolutions as can be; how many changed.

    Kernels of different sizes are padded to the larger one; strides and places must agree. ``rounded``: weights will
    be integers, so that a branch whose weights are much larger stays by itself.
    """
    sums = [node for node in model.graph.nodes if _is_sum(node)]
    inner = {one for node in sums for one in node.args if _goes_on(one, node)}
    changed = sum(_merge_sum(model, node, rounded) for node in sums if node not in inner)
    model.graph.eliminate_dead_code()
    return changed


def _is_sum(node: object) -> bool:
    """Whether it adds two different images of one shape."""
    if not isinstance(node, Node) or node.target != aten.add.Tensor or node.kwargs.get("alpha", 1) != 1:
        return False
    values = [one.meta.get("val") for one in (node, *node.all_input_nodes)]
    shapes = [value.shape for value in values if isinstance(value, Tensor)]
    return len(shapes) == 3 and len(shapes[0]) == 4 and all(shape[1:] == shapes[0][1:] for shape in shapes)


def _goes_on(part: object, total: Node) -> bool:
    """Whether ``part`` of a sum is a sum itself, and nothing but a part."""
    return isinstance(part, Node) and _is_sum(part) and list(part.users) == [total]


def _terms(total: Node) -> list[Node]:
    found: list[Node] = []
    for part in total.all_input_nodes:
        found += _terms(part) if _goes_on(part, total) else [part]
    return found


def _merge_sum(model: GraphModule, total: Node, rounded: bool) -> bool:
    terms = _terms(total)
    found = {term: branch for term in terms if (branch := branch_of(model, term)) is not None}
    made: dict[Node, Branch] = {}
    # Identities last: whether one fits into a convolution is seen when that is whole.
    for term in sorted(found, key=lambda term: found[term].groups is None):
        branch = found[term]
        for other, whole in made.items():
            merged = _merge(whole, branch)
            if merged is None:
                continue
            if not (rounded and _too_wide(merged, whole, branch)):
                made[other] = merged
                break
            # The convolution adds its bias as it is; in the identity's range it would take up room.
            made[other], branch = replace(whole, bias=merged.bias), replace(branch, bias=torch.zeros_like(branch.bias))
        else:
            made[term] = branch
    if len(made) == len(found) and all(made[term] is branch for term, branch in found.items()):
        return False
    # The first of a sum is the one that TensorRT computes together with it.
    left = [term for term in terms if term not in found or term in made]
    left.sort(key=lambda term: term in made and made[term].groups is None)
    parts = [write_branch(model, made[term], term) if term in made else term for term in left]
    new = parts[0]
    for part in parts[1:]:
        with model.graph.inserting_before(total):
            new = model.graph.call_function(aten.add.Tensor, (new, part))
        new.meta = dict(total.meta)
    total.replace_all_uses_with(new)
    model.graph.erase_node(total)
    return True


def _merge(first: Branch, second: Branch) -> Branch | None:
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
    return Branch(first.data, total, first.bias + second.bias, first.stride, padding, groups)


def _too_wide(merged: Branch, *parts: Branch) -> bool:
    """Whether the merged weights are rounded badly, and the parts' much better."""
    together, apart = (sum(_rounding(one.weight) for one in branches) for branches in ((merged,), parts))
    assert isinstance(together, Tensor)
    assert isinstance(apart, Tensor)
    rounded = apart > 0  # not so where an identity alone is left of a row
    if not rounded.any():
        return False
    signal = merged.weight.square().flatten(1).sum(1)[rounded]
    together_db, apart_db = (_decibels(signal, noise[rounded]) for noise in (together, apart))
    return together_db < ENOUGH_DB and apart_db - together_db > WORTH_DB


def _rounding(weight: Tensor) -> Tensor:
    """(rows,): the expected square error of a row on its own scale, whose largest weight is exact."""
    rows = weight.flatten(1)
    return (rows.shape[1] - 1) * (rows.abs().amax(1) / CODES).square() / 12


def _decibels(signal: Tensor, noise: Tensor) -> float:
    tiny = torch.finfo(signal.dtype).tiny
    return float(10 * (signal.detach().clamp(min=tiny) / noise.detach().clamp(min=tiny)).log10().mean())


def _middle(branch: Branch) -> tuple[float, ...]:
    """Where the image's place lies in the kernel, in steps from the kernel's start less its padding."""
    return tuple((size - 1) / 2 - pad for size, pad in zip(branch.weight.shape[2:], branch.padding, strict=True))


def _dense(branch: Branch, groups: int) -> Tensor:
    """The kernel for that many groups, where it is written as one number a channel."""
    channels = branch.weight.shape[0]
    if branch.groups is not None or groups == channels:
        return branch.weight
    inside = channels // groups
    eye = torch.eye(inside).to(branch.weight).repeat(groups, 1).reshape(channels, inside, 1, 1)
    return eye * branch.weight


def _padded(weight: Tensor, size: tuple[int, ...]) -> Tensor:
    rows, columns = ((a - b) // 2 for a, b in zip(size, weight.shape[2:], strict=True))
    return nn.functional.pad(weight, (columns, columns, rows, rows))
