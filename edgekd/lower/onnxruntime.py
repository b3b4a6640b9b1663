"""ONNX Runtime, CPU: nearly every site stays.

A convolution becomes integer only with a Q on its output (qdq_selectors.cc), also when a GELU follows that stays float;
operators that pass numbers on run on integers between two equal sites, and a linear layer wants its site right in front
of it, because its int32 bias is scaled by it. That bias makes it integer without a site behind it, so there is none
between a linear layer and an activation that is float anyway.
"""

from __future__ import annotations

from edgekd.lower.graph import Graph, SiteNode
from edgekd.lower.tokens import added_bias

# A layer is integer only with a site on its output; a linear one with an int32 bias needs none.
NEEDS_OUTPUT_SITE = True
# Biases become int32 in units of data scale x weight scale, when the file is written (linear) or loaded (the rest).
INTEGER_BIAS = True
# Float weights behind a site become integers when the file is loaded, unless lowering prevents it (shield.py).
QUANTIZES_WEIGHTS = True
# On x86 without VNNI sums of two products have 16 bits.
SATURATES = True
# Its hardswish and hardsigmoid have no integer kernels, but additions and products do (spelling.py).
SPELLS_HARDSWISH = True
SPELLS_PERMUTATIONS = False
# Its integer convolutions on x86 want channels in fours (wide_input.py).
WIDENS_INPUT = True
# Any site in front of a resize ends an integer kernel.
RESIZES_INTEGERS = ()
FUSES_ADD = False
# They have no integer kernel.
FLOAT_ACTIVATIONS = ("Gelu", "Elu", "Softplus", "Tanh")
# A Clip is absorbed by the rounding behind it when that has no code beyond (qdq_util.cc), else the layer stays float.
FUSES_CLIPS = False


def drops(graph: Graph, site: SiteNode) -> bool:
    """Whether this backend wants no site here: between a linear layer with an int32 bias and what is float anyway."""
    producer, users = graph.producer.get(site.tensor), graph.users(site.tensor)
    if producer is None or not users or any(user.op_type not in FLOAT_ACTIVATIONS for user in users):
        return False
    product = graph.without_bias(producer)
    return product.op_type == "Gemm" or (product is not producer and added_bias(graph, product) is producer)
