"""Permutations of channels written so that OpenVINO computes them right, and fast.

Its fusion of reversed channels (src/common/transformations, ReverseInputChannelsFusion) takes every Gather of all
channels for a reversal and moves it into the next convolution by gathering the weights with the same indices. That is
right where a permutation is its own inverse and silently wrong elsewhere (seen in 2026.4). It does not look at a Gather
that counts its axis from the end. Channel shuffles (ShuffleNet, Zhang et al., CVPR 2018) get the three operators of
which the CPU plugin makes one ShuffleChannels: it keeps channels last in memory, which a Gather does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from edgekd.lower.graph import Graph, value_shapes

_SPLIT, _BACK = "_split", "_back"


@dataclass(frozen=True)
class _Spelling:
    """The nodes and constants that stand for one Gather."""

    nodes: list[onnx.NodeProto]
    constants: dict[str, np.ndarray]


def spell_permutations(graph: Graph) -> None:
    """In place: every Gather with constant indices of a value whose rank is known."""
    shapes = value_shapes(graph.model)
    for node in [one for one in graph.model.graph.node if one.op_type == "Gather"]:
        spelling = _spelling(graph, node, shapes.get(node.input[0]))
        if spelling is None:
            continue
        place = list(graph.model.graph.node).index(node)
        graph.model.graph.node.remove(node)
        for offset, new in enumerate(spelling.nodes):
            graph.model.graph.node.insert(place + offset, new)
        for name, value in spelling.constants.items():
            graph.set_constant(name, value)
        graph.refresh()


def with_gathers(model: onnx.ModelProto, master: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a lowered file with the ``master``'s Gather in place of exactly what `spell_permutations` makes of it.

    What differs from that in any node or number stays, for whoever compares the two.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    original, shapes = Graph(master), value_shapes(master)
    for node in [one for one in master.graph.node if one.op_type == "Gather"]:
        graph = Graph(plain)
        last = graph.producer.get(node.output[0])
        if last is None or last == node:
            continue
        # What goes in has another name where sites were added or taken away.
        first = last if last.op_type == "Gather" else graph.producer.get(f"{node.output[0]}{_SPLIT}")
        spelling = _spelling(original, node, shapes.get(node.input[0]))
        if first is None or spelling is None:
            continue
        spelling.nodes[0].input[0] = first.input[0]
        found = [graph.producer.get(new.output[0]) for new in spelling.nodes]
        known = all(
            name in graph.constants and np.array_equal(graph.array(name), value)
            for name, value in spelling.constants.items()
        )
        if not known or any(one != new for one, new in zip(found, spelling.nodes, strict=True)):
            continue
        place = list(plain.graph.node).index(last)
        again = onnx.NodeProto()
        again.CopyFrom(node)
        again.input[0] = first.input[0]
        if node.input[1] not in graph.constants:
            plain.graph.initializer.append(original.constants[node.input[1]])
        for one in found:
            plain.graph.node.remove(one)
        plain.graph.node.insert(place + 1 - len(found), again)
    return plain


def _spelling(graph: Graph, node: onnx.NodeProto, shape: list[int] | None) -> _Spelling | None:
    """What stands for ``node``, which takes a value of ``shape`` (0: not known); None where it stays."""
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    if node.input[1] not in graph.constants or shape is None or axis < 0:
        return None
    groups = _shuffled_groups(graph.array(node.input[1]), shape) if axis == 1 and len(shape) == 4 else None
    if groups is None:
        again = helper.make_node("Gather", list(node.input), list(node.output), name=node.name, axis=axis - len(shape))
        return _Spelling([again], {})
    channels, out = shape[1], node.output[0]
    # 0 leaves the batch as it is.
    constants = {
        f"{out}{_SPLIT}_shape": np.array([0, groups, channels // groups, *shape[2:]], np.int64),
        f"{out}{_BACK}_shape": np.array([0, *shape[1:]], np.int64),
    }
    split, back = constants
    nodes = [
        helper.make_node("Reshape", [node.input[0], split], [f"{out}{_SPLIT}"], name=f"{out}{_SPLIT}"),
        helper.make_node(
            "Transpose", [f"{out}{_SPLIT}"], [f"{out}_turned"], name=f"{out}_turned", perm=[0, 2, 1, 3, 4]
        ),
        helper.make_node("Reshape", [f"{out}_turned", back], [out], name=out),
    ]
    return _Spelling(nodes, constants)


def _shuffled_groups(order: np.ndarray, shape: list[int]) -> int | None:
    """The number of groups that a shuffle with these indices has; None where it is none or a size is not known."""
    channels = shape[1]
    if order.shape != (channels,) or 0 in shape[1:] or channels < 2:
        return None
    # A shuffle begins with the first channel of each group: the second index is the size of a group.
    size = int(order[1])
    if size < 2 or channels % size:
        return None
    groups = channels // size
    wanted = np.arange(channels).reshape(groups, size).T.reshape(-1)
    return groups if np.array_equal(order, wanted) else None
