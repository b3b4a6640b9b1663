"""The view of a graph stays true while nodes go, without being read anew."""

from __future__ import annotations

import onnx
import pytest
from strict_nets import master

from edgekd.lower.graph import Graph


def told(graph: Graph) -> tuple[dict, dict]:
    """Who makes and who reads each value, in no order."""
    makers = {name: node.SerializeToString() for name, node in graph.producer.items()}
    readers = {name: sorted(node.SerializeToString() for node in nodes) for name, nodes in graph.consumers.items()}
    return makers, readers


@pytest.mark.parametrize("net", ["mobilenet-xs", "resnet-xs"])
def test_bypassed_sites_and_weights(net: str) -> None:
    graph = Graph(onnx.load(master(net).path))
    pairs = [(one.quantize, one.dequantize) for one in [*graph.sites()[::2], *graph.layers()[::2]]]
    assert len(pairs) > 8
    for quantize, dequantize in pairs:
        graph.bypass(quantize, dequantize)
        assert told(graph) == told(Graph(graph.model))
