"""The static proof of a lowering: every scale and every weight code stems from the master."""

from __future__ import annotations

import numpy as np
import onnx

from edgekd.errors import ProofFailed
from edgekd.forms import Master, QuantForm
from edgekd.lower.apply import quantize_weight, site_parameters
from edgekd.lower.graph import Graph


def check_lowering(master: Master, lowered: onnx.ModelProto, form: QuantForm) -> None:
    """That ``lowered`` only relaxes ``master``, but for weights tightened to the form's ``weight_range``.

    Raises:
        ProofFailed: a scale was invented or a weight changed; the site or layer is named.
    """
    original, graph = Graph(onnx.load(master.path)), Graph(lowered)
    sites = {site.tensor: site for site in master.sites}
    half = form.float_type == "fp16" and form.rules == "tensorrt"
    for node in graph.sites():
        site = sites.get(node.tensor.removesuffix("_fp16"))
        if site is None:
            raise _failed(f"a site at {node.tensor} that the master does not have")
        scale, zero_point = site_parameters(np.array(site.scale, np.float32), site.sign, form)
        expected = scale.astype(np.float16) if half else scale
        found_zero = graph.array(node.quantize.input[2])
        if graph.array(node.quantize.input[1]) != expected or (found_zero, found_zero.dtype) != (
            zero_point,
            zero_point.dtype,
        ):
            raise _failed(f"another scale or zero point at {node.tensor} than the master's")
    for layer in original.layers():
        name = f"{layer.weight}_int8"
        if name not in graph.constants:
            continue
        weight, scale = original.array(layer.weight), original.array(layer.quantize.input[1])
        tightened = (scale * np.float32(127 / form.weight_range)).astype(np.float32)
        codes = graph.array(name)
        if not any(np.array_equal(codes, quantize_weight(weight, one, layer.axis)) for one in (scale, tightened)):
            raise _failed(f"other weights in {layer.weight} than the master's")


def _failed(what: str) -> ProofFailed:
    return ProofFailed(
        f"the lowered graph has {what}", where="hop master -> lowered", remedy="report this: a lowering rule is wrong"
    )
