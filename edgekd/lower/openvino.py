"""OpenVINO, CPU plugin: which sites stay.

A site between a weighted layer and its activation splits the fused kernel in two; behind operators that pass numbers
on a site is carried by the low precision transformations (src/common/low_precision_transformations). Read from
compiled models: docs/placement.md.
"""

from __future__ import annotations

from edgekd.lower.graph import ACTIVATIONS, PASSING, WEIGHTED, Graph, SiteNode

NEEDS_OUTPUT_SITE = False
INTEGER_BIAS = False
FUSES_ADD = False


def drops(graph: Graph, site: SiteNode) -> bool:
    """Whether this backend wants no site here."""
    producer = graph.producer.get(site.tensor)
    if producer is None:
        return False
    if producer.op_type in PASSING:
        return graph.is_quantized(producer.input[0])
    users = graph.users(site.tensor)
    return producer.op_type in WEIGHTED and bool(users) and all(user.op_type in ACTIVATIONS for user in users)
