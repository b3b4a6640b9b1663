"""Concatenations whose signed parts a backend wants in another integer type than its other signed values."""

from __future__ import annotations

from dataclasses import replace

import onnx

from edgekd.forms import QuantForm
from edgekd.lower.graph import PASSING, Graph

MOVING = ("QuantizeLinear", "DequantizeLinear", "Concat", *PASSING)
# A resize hands a convolution what it reads.
CONVOLUTIONS = {"Conv", "ConvTranspose", "Resize"}


def form_at(form: QuantForm, tensor: str, joined: frozenset[str]) -> QuantForm:
    """The form that a site's numbers have, where ``joined`` are those that `joined_sites` found."""
    return replace(form, signed=form.joined) if form.joined and tensor in joined else form


def joined_sites(graph: Graph, form: QuantForm) -> frozenset[str]:
    """The sites of values that a concatenation takes or gives, also moved; none where the form treats all alike.

    None either of those that linear layers on tokens read and no convolution does: there OpenVINO has a zero point for
    every token, with which these layers do not compile, or stay float (2026.4.1); in s8 they are integer, and right.
    """
    if form.joined is None:
        return frozenset()
    found: set[str] = set()
    seen: set[str] = set()
    for node in graph.model.graph.node:
        if node.op_type == "Concat" and node.output[0] not in seen:
            values = _moved_together(graph, node)
            seen |= values
            readers = {user.op_type for name in values for user in graph.consumers.get(name, [])}
            if "MatMul" not in readers or readers & CONVOLUTIONS:
                found |= values
    return frozenset(site.tensor for site in graph.sites() if site.tensor in found)


def _moved_together(graph: Graph, concatenation: onnx.NodeProto) -> set[str]:
    """The values whose numbers are a concatenation's, moved or on either side of a site, and theirs in turn."""
    pending, seen = list(concatenation.output), set[str]()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in (graph.producer.get(name), *graph.consumers.get(name, [])):
            if node is not None and node.op_type in MOVING:
                pending += [*(node.input if node.op_type == "Concat" else node.input[:1]), *node.output]
    return seen
