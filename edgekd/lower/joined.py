"""Concatenations whose signed parts a backend wants in another integer type than its other signed values."""

from __future__ import annotations

from dataclasses import replace

from edgekd.forms import QuantForm
from edgekd.lower.graph import PASSING, Graph

MOVING = ("QuantizeLinear", "DequantizeLinear", "Concat", *PASSING)


def form_at(form: QuantForm, tensor: str, joined: frozenset[str]) -> QuantForm:
    """The form that a site's numbers have, where ``joined`` are those that `joined_sites` found."""
    return replace(form, signed=form.joined) if form.joined and tensor in joined else form


def joined_sites(graph: Graph, form: QuantForm) -> frozenset[str]:
    """The sites of values that a concatenation takes or gives, also moved; none where the form treats all alike."""
    if form.joined is None:
        return frozenset()
    pending = [name for node in graph.model.graph.node if node.op_type == "Concat" for name in node.output]
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in (graph.producer.get(name), *graph.consumers.get(name, [])):
            if node is not None and node.op_type in MOVING:
                pending += [*(node.input if node.op_type == "Concat" else node.input[:1]), *node.output]
    return frozenset(site.tensor for site in graph.sites() if site.tensor in seen)
