"""What a layer beyond the overflow bound gets: tightened weights, or an input in 127 codes, whichever costs less.

Both keep every sum of two products in 16 bits (`edgekd.lower.overflow`). What they cost is noise, told beside the
layer's signal and estimated from what is known without data:

- Weights: an output channel is rounded in coarser steps. Steps d and weights w of n inputs of equal power give a noise
  to signal ratio of n d^2 / 12 / sum(w^2).
- Codes: a non-negative input in 127 codes of [0, r] instead of 255 is rounded in steps twice as wide, for every
  operator that reads it: (r/127)^2 / 12 over its power, which is taken as (r / `CREST`)^2.

127 codes hold only if nothing leaves them: u8 has room for [0, 2r], outliers of a calibrated range would fill it, and a
ReLU6 would no longer be absorbed by the rounding. So the clip to the master's own range is written out (a Relu
becomes a Clip), and the cure is open only where a backend computes such a Clip inside the kernel in front of it.
Signed inputs are unsigned bytes around 128 in every engine on x86 and need tightened weights.

A product of two activations has no weights to tighten, so one that can leave 16 bits stays in float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import onnx

from edgekd.forms import QuantForm, Site
from edgekd.lower.graph import AVERAGES, PASSING, WEIGHTED, Graph, Layer, value_shapes
from edgekd.lower.numbers import site_parameters, weight_parameters
from edgekd.lower.overflow import (
    HIGHEST,
    LARGEST_CODE,
    Meeting,
    bound,
    least_scales,
    meeting,
    product_saturates,
    softmax_pair_codes,
)

FEW_CODES = 127
# The end of a calibrated range over the root mean square: a rectified normal value, cut at 3.5 standard deviations.
CREST = 5.0


@dataclass(frozen=True)
class LayerBound:
    """One integer layer by the name of its output: its bound, and what it got.

    ``bound`` is the largest sum of two products of full-range weights with full-range activations; 16 bits end at
    32767. ``cure`` is "" within the bound (and where the form has no cure), "weights" or "codes"; ``noise_db`` the
    estimated ratio of signal to the noise that the cure adds, None without one.
    """

    layer: str
    site: str
    bound: int
    saturates: bool
    cure: Literal["", "weights", "codes"] = ""
    noise_db: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)


@dataclass(frozen=True)
class Cures:
    """Rows of all integer layers, and the sites (by tensor) that keep to 127 codes."""

    rows: tuple[LayerBound, ...] = ()
    few_codes: frozenset[str] = frozenset()

    def tightens(self, layer: str) -> bool:
        """Whether a layer's weights are tightened."""
        return any(row.layer == layer and row.cure == "weights" for row in self.rows)


def choose_cures(
    graph: Graph, reads: dict[str, str], sites: set[str], signs: dict[str, str], form: QuantForm, *, fuses_clips: bool
) -> Cures:
    """The cures of ``form`` for the master's ``graph``.

    ``reads`` names the site of each integer layer's input, by the layer's output; ``sites`` are those that the
    backend keeps; ``fuses_clips`` tells whether it computes a Clip inside the kernel in front of it.
    """
    layers = {layer.node.output[0]: layer for layer in graph.layers()}
    bounds = {name: _bound(graph, layers[name], form) for name in reads}
    beyond = {name for name, value in bounds.items() if value > HIGHEST}
    coarser = {name: _weight_noise(graph, layers[name], form) for name in beyond}
    few = {
        site
        for site in {reads[name] for name in beyond}
        if form.cure == "cheaper"
        and fuses_clips
        and signs[site] == "nonnegative"
        and _can_clip(graph, site)
        and (users := _users(graph, site, sites)) > 0
        and users * _code_noise() < sum(noise for name, noise in coarser.items() if reads[name] == site)
    }
    rows = []
    for name, site in reads.items():
        cure: Literal["", "weights", "codes"] = ""
        if name in beyond and form.cure != "none":
            cure = "codes" if site in few else "weights"
        noise = {"": None, "codes": _code_noise(), "weights": coarser.get(name)}[cure]
        decibel = None if noise is None else round(float(-10 * np.log10(max(noise, 1e-12))), 1)
        rows.append(LayerBound(name, site, bounds[name], name in beyond, cure, decibel))
    return Cures(tuple(rows), frozenset(few))


def saturating_products(graph: Graph, sites: Mapping[str, Site], form: QuantForm) -> set[str]:
    """Outputs of the integer products of two activations of ``graph`` that could saturate; none without a cure."""
    if form.cure == "none" or form.signed != "s8":
        return set()
    found = set()
    for node in graph.model.graph.node:
        if node.op_type != "MatMul" or len(graph.data_inputs(node)) != 2:
            continue
        if not all(graph.is_quantized(name) for name in node.input):
            continue
        codes, name = 2 * LARGEST_CODE, node.input[0]
        if graph.is_site_output(name) and _is_softmax_of_rows(graph, graph.source(name)):
            scale, _ = site_parameters(sites[graph.producer[graph.producer[name].input[0]].input[0]], form)
            codes = softmax_pair_codes(float(scale))
        if product_saturates(codes):
            found.add(node.output[0])
    return found


def _is_softmax_of_rows(graph: Graph, node: onnx.NodeProto | None) -> bool:
    """Whether the values that a product sums over sum up to 1."""
    if node is None or node.op_type != "Softmax":
        return False
    axis = next((one.i for one in node.attribute if one.name == "axis"), -1)
    return axis == -1 or axis == len(value_shapes(graph.model)[node.output[0]]) - 1


def how_weights_meet(graph: Graph, layer: Layer) -> Meeting:
    """`edgekd.lower.overflow.meeting` of a layer."""
    group = next((a.i for a in layer.node.attribute if a.name == "group"), 1)
    return meeting(layer.node.op_type, graph.array(layer.weight).shape, group)


def _full_range(graph: Graph, layer: Layer, form: QuantForm) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    weight, scale = graph.array(layer.weight), graph.array(layer.quantize.input[1])
    return weight, *weight_parameters(weight, scale, layer.axis, form)


def _bound(graph: Graph, layer: Layer, form: QuantForm) -> int:
    _, codes, _ = _full_range(graph, layer, form)
    return bound(codes, layer.axis, how_weights_meet(graph, layer), LARGEST_CODE)


def _weight_noise(graph: Graph, layer: Layer, form: QuantForm) -> float:
    """Added noise over signal of tightened weights."""
    weight, codes, scale = _full_range(graph, layer, form)
    tight = np.maximum(scale, least_scales(weight, codes, layer.axis, how_weights_meet(graph, layer)))
    inputs = weight.size / weight.shape[layer.axis]
    added = inputs * (np.square(tight, dtype=np.float64) - np.square(scale, dtype=np.float64)).sum() / 12
    return float(added / np.square(weight, dtype=np.float64).sum())


def _code_noise() -> float:
    """Added noise over signal of an input in 127 codes."""
    return CREST**2 * (1 / FEW_CODES**2 - 1 / LARGEST_CODE**2) / 12


def _can_clip(graph: Graph, site: str) -> bool:
    """Whether a site's value comes out of a Relu or Clip that a kernel computes with its sums.

    What others read too has a site in front of the Relu, and no kernel computes both.
    """
    clip = graph.producer.get(site)
    source = graph.producer.get(clip.input[0]) if clip is not None and clip.op_type in ("Relu", "Clip") else None
    return source is not None and source.op_type in (*WEIGHTED, "Add")


def _users(graph: Graph, tensor: str, sites: set[str]) -> int:
    """How many operators compute with a site's value; 0 where the site's scale must equal another's."""
    found = 0
    for node in graph.users(tensor):
        if node.op_type in PASSING:
            behind = 0 if node.output[0] in sites else _users(graph, node.output[0], sites)
        else:
            behind = int(node.op_type in (*WEIGHTED, *AVERAGES, "Add", "Mul"))
        if not behind:
            return 0
        found += behind
    return found
