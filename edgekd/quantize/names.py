"""One name for a value, in the fake-quantized network and in the master.

The exporter numbers values anew (``relu_`` becomes ``relu``, ``add_1`` becomes ``add_131``), so that equal names would
mean different values; each exported node tells the node that it stems from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import onnx
from torch.fx import Graph

INPUT, OUTPUT, BATCH = "input", "logits", "batch"


def original_names(exported: Graph, original: Graph) -> dict[str, str]:
    """The name in ``original`` of each value of ``exported``; of several that stem from one node, the last is it."""
    last = {}
    for node in exported.nodes:
        name = next((one.name for one in _ancestors(node.meta.get("from_node")) if one.graph_id == id(original)), None)
        if name is not None:
            last[name] = node.name
    return {new: old for old, new in last.items()}


def rename_values(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """In place: ``names`` for what the nodes of ``model`` compute; inputs, outputs and constants keep theirs."""
    graph = model.graph
    fixed = {value.name for value in [*graph.input, *graph.output]} | {tensor.name for tensor in graph.initializer}
    computed = {name for node in graph.node for name in node.output if name} - fixed
    new = {old: name for old, name in names.items() if old in computed and name not in fixed}
    taken = set(new.values())
    for name in computed - new.keys():
        if name in taken:
            new[name] = f"{name}_inner"
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for value in graph.value_info:
        value.name = new.get(value.name, value.name)


def _ancestors(sources: Sequence[Any] | None) -> Iterator[Any]:
    """What a node stems from, through all graphs that it went through."""
    for source in sources or ():
        yield source
        yield from _ancestors(source.from_node)
