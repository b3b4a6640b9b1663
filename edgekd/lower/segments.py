"""A network cut at its weighted layers: each with what follows it, as runtimes fuse and time them."""

from __future__ import annotations

from edgekd.lower.graph import WEIGHTED, Graph


def segments(graph: Graph) -> dict[str, str]:
    """Every computed value's segment: the name of the weighted layer's value that begins it.

    A segment is a weighted layer with all that follows up to the next ones: activation, addition, pooling, and the
    sites among them. What joins two segments belongs to the later one; what comes before any layer, to the first.
    """
    order = {node.output[0]: place for place, node in enumerate(graph.model.graph.node) if node.op_type in WEIGHTED}
    first = next(iter(order), None)
    found: dict[str, str] = {}
    for node in graph.model.graph.node:
        before = [found[name] for name in node.input if name in found]
        owner = node.output[0] if node.output[0] in order else max(before, key=order.__getitem__, default=first)
        if owner is not None:
            found |= dict.fromkeys(node.output, owner)
    return found


def crossings(graph: Graph) -> set[tuple[str, str, str]]:
    """(value, segment that makes it, segment that reads it) wherever they are not the same; sites are seen through."""
    owner = segments(graph)
    found = set()
    for node in graph.model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for name in node.input:
            source = graph.source(name)
            if source is not None and owner[source.output[0]] != owner[node.output[0]]:
                found.add((source.output[0], owner[source.output[0]], owner[node.output[0]]))
    return found
