"""Sums and means over tokens that OpenVINO has to compute in float.

Of integers (N, T, C) its kernel scales the first sample's sums and leaves the others zero, where no rounding is part of
the kernel (2026.4.1, any T and C). Of floats it is right, as it is of other ranks and axes.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from edgekd.lower.graph import PASSING, Graph

# Whether a node can be integer where the named outputs are float.
IsInteger = Callable[[onnx.NodeProto, set[str]], bool]


def misread_sums(graph: Graph, in_float: set[str], is_integer: IsInteger) -> set[str]:
    """Outputs of those that no site follows at once which ends before integers; ``in_float`` are float already."""
    found: set[str] = set()
    # The last first: one behind another leaves it without integers behind.
    for node in reversed(graph.model.graph.node):
        if node.op_type not in ("ReduceMean", "ReduceSum") or not _over_tokens(graph, node):
            continue
        name, users = node.output[0], graph.consumers.get(node.output[0], [])
        rounded = name not in graph.outputs and all(user.op_type == "QuantizeLinear" for user in users)
        if not (rounded and _meets_integers(graph, name, in_float | found, is_integer)):
            found.add(name)
    return found


def _over_tokens(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether the second of three axes is summed over; so it is taken to be where the rank is not known."""
    shape = graph.shapes.get(node.input[0], [])
    if shape and len(shape) != 3:
        return False
    axes = [one for attribute in node.attribute if attribute.name == "axes" for one in attribute.ints]
    if len(node.input) > 1 and node.input[1] in graph.constants:
        axes = graph.array(node.input[1]).tolist()
    # No axes are all of them.
    return not axes or any(axis in (1, -2) for axis in axes)


def _meets_integers(graph: Graph, name: str, in_float: set[str], is_integer: IsInteger) -> bool:
    """Whether something integer reads a value, through sites and what only moves numbers."""
    return any(
        is_integer(user, in_float)
        or (
            user.op_type in ("QuantizeLinear", "DequantizeLinear", *PASSING)
            and any(_meets_integers(graph, one, in_float, is_integer) for one in user.output)
        )
        for user in graph.consumers.get(name, [])
    )
