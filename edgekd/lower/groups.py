"""Which weighted layers belong to the groups that a candidate may leave in float."""

from __future__ import annotations

import onnx

from edgekd.lower.graph import CLIPS, GATES, WEIGHTED, Graph


def float_nodes(graph: Graph, groups: frozenset[str]) -> set[str]:
    """Output names of the nodes that stay float under ``groups`` (see `edgekd.forms.FloatGroup`)."""
    weighted = [node for node in graph.model.graph.node if node.op_type in WEIGHTED]
    if "all" in groups:
        return {node.output[0] for node in graph.model.graph.node}
    found: set[str] = set()
    if "gates" in groups:
        found |= _gates(graph)
    if "first" in groups:
        found |= {node.output[0] for node in weighted if graph.is_first(node)}
    if "last" in groups:
        found |= {node.output[0] for node in weighted if _reaches_output(graph, node)}
    if "hardswish" in groups:
        found |= {
            node.output[0] for node in graph.model.graph.node if node.op_type == "HardSwish" or _is_silu(graph, node)
        }
    if "attention" in groups:
        found |= {node.output[0] for node in weighted if len(graph.data_inputs(node)) == 2}
    return found


def _is_silu(graph: Graph, node: onnx.NodeProto) -> bool:
    return node.op_type in GATES and any(graph.is_gated(user, node) for user in graph.users(node.output[0]))


def _gates(graph: Graph) -> set[str]:
    """Squeeze-and-excite branches: from the pooling to the gate, and the Mul that applies it."""
    found: set[str] = set()
    for node in graph.model.graph.node:
        if node.op_type != "Mul":
            continue
        for name in node.input:
            branch = _branch(graph, graph.source(name))
            if branch:
                found |= {node.output[0], *branch}
    return found


def _branch(graph: Graph, gate: onnx.NodeProto | None) -> set[str]:
    """Outputs of gate, convolutions and pooling when ``gate`` ends such a branch; else empty."""
    if gate is None or gate.op_type not in GATES:
        return set()
    found = {gate.output[0]}
    node = graph.source(gate.input[0])
    while node is not None and (node.op_type in (*WEIGHTED, *CLIPS, "HardSwish", "Reshape") or graph.is_gated(node)):
        found.add(node.output[0])
        if node.op_type == "Mul":
            inside = [graph.source(name) for name in node.input]
            node = next(one for one in inside if one is not None and one.op_type in GATES)
            found.add(node.output[0])
        node = graph.source(node.input[0])
    if node is None or node.op_type not in ("GlobalAveragePool", "ReduceMean"):
        return set()
    return found | {node.output[0]}


def _reaches_output(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node's output is the network's, through nothing that computes."""
    name = node.output[0]
    while name not in graph.outputs:
        users = graph.users(name)
        if len(users) != 1 or users[0].op_type not in ("Reshape", "Flatten", "Squeeze", "Identity"):
            return False
        name = users[0].output[0]
    return True
