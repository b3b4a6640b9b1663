"""OpenVINO, CPU plugin: which sites stay.

A site between a weighted layer and its activation splits the fused kernel in two; behind operators that pass numbers
on a site is carried by the low precision transformations (src/common/low_precision_transformations). Read from
compiled models: docs/placement.md.
"""

from __future__ import annotations

from edgekd.lower.graph import Graph, SiteNode

NEEDS_OUTPUT_SITE = False
INTEGER_BIAS = False
QUANTIZES_WEIGHTS = False
# On x86 without VNNI.
SATURATES = True
SPELLS_HARDSWISH = False
SPELLS_PERMUTATIONS = True
WIDENS_INPUT = False
# How; with a site in front and an equal one behind. Others compute in float.
RESIZES_INTEGERS = ("nearest",)
FUSES_ADD = False
# Any Clip behind a weighted layer or a residual addition is part of its kernel.
FUSES_CLIPS = True


def drops(graph: Graph, site: SiteNode) -> bool:
    """Whether this backend wants no site here."""
    return graph.needless(site)
