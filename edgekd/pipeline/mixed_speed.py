"""Layers whose integers gain no time on this machine, from the runtime's profiles of the two pure forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.backends import Backend
from edgekd.forms import LayerTime, QuantForm
from edgekd.pipeline.alone import measuring_alone
from edgekd.pipeline.candidates import Made, master_in_float
from edgekd.stage import Progress
from edgekd.target import Target

# A division that promises less than this of the integer network's time is within a race's noise, and is not made.
LEAST_GAIN = 0.02
# What a change between integer and float costs, in units of quantizing as many values: a Q or a DQ; and with the
# changes of memory layout around it.
CROSSING = (1.0, 4.0)


@dataclass(frozen=True)
class Profiled:
    """``layers``: microseconds of every segment in either form; ``floats``: segments for float, with what each gains.

    A gain is the share of the time that the network takes with the forced layers alone in float. ``owner``: the segment
    of every value of the network in float.
    """

    layers: list[dict[str, Any]]
    floats: list[tuple[frozenset[str], float]]
    owner: dict[str, str]
    why: str

    def values(self, kept: frozenset[str]) -> frozenset[str]:
        """All that segments compute: what follows a layer stays float with it, or it would quantize in between."""
        return frozenset(value for value, segment in self.owner.items() if segment in kept)


def profile_layers(
    backend: Backend,
    target: Target,
    folder: Path,
    integer: Made,
    scratch: Path,
    sample: np.ndarray,
    progress: Progress,
    forced: frozenset[str] = frozenset(),
) -> Profiled:
    """Profile the integer candidate and the same network in float, and divide it where that is cheapest.

    It waits while another build measures, since each would disturb the other.
    ``sample``: (1, ...); ``forced``: layers that stay in float whatever it costs, since the accuracy needs it. Empty
    where the runtime tells no times.
    """
    import onnx

    from edgekd.lower.graph import Graph
    from edgekd.lower.paying import cheapest_floats, divided_time
    from edgekd.lower.segments import crossings, segments

    # Not the float candidate: that is the student's own file, whose values have other names.
    (scratch / "float").mkdir(parents=True, exist_ok=True)
    path = scratch / "float" / "model.onnx"
    path.write_bytes(master_in_float(folder, QuantForm.from_json(integer.row["form"])).SerializeToString())
    compiled = backend.compile(path, target, path.parent)
    feeds = {"input": sample}
    with measuring_alone(progress):
        times = [backend.profile(one, target, feeds) for one in (integer.compiled, compiled)]
    if not all(times):
        return Profiled([], [], {}, "the runtime tells no times here")
    graphs = [Graph(onnx.load(one.onnx)) for one in (integer.compiled, compiled)]
    owners = [segments(graph) for graph in graphs]
    ints, floats = (_by_segment(found, owner) for found, owner in zip(times, owners, strict=True))
    rows = [{"name": name, "integer_us": round(ints[name], 1), "float_us": round(floats[name], 1)} for name in ints]
    overhead, unit = _quantizing(times[0], graphs[0], sample.size)
    sizes = _sizes(graphs[1])
    edges: dict[tuple[str, str], float] = {}
    for value, one, other in crossings(graphs[1]):
        edges[one, other] = edges.get((one, other), 0.0) + overhead + unit * sizes.get(value, 0)
    needed = frozenset(owners[1][name] for name in forced)
    found: list[tuple[frozenset[str], float]] = []
    for factor in CROSSING:
        costs = {key: factor * value for key, value in edges.items()}
        kept, cost = cheapest_floats(ints, floats, costs, needed)
        without = divided_time(needed, ints, floats, costs)
        gain = 1 - cost / without if without else 0.0
        if 0 < len(kept) < len(ints) and gain >= LEAST_GAIN and kept not in [one for one, _ in found]:
            found.append((kept, round(gain, 4)))
    why = "layers that gain nothing from integers" if found else "no division promises to be faster"
    # A backend's spelling has values that forms know nothing of.
    known = Graph(onnx.load(folder / "master.onnx")).producer.keys()
    return Profiled(rows, found, {value: owner for value, owner in owners[1].items() if value in known}, why)


def _by_segment(times: Sequence[LayerTime], owner: dict[str, str]) -> dict[str, float]:
    """Microseconds of every segment; a kernel without a name of the file counts to the one before it."""
    total = dict.fromkeys(dict.fromkeys(owner.values()), 0.0)
    current = next(iter(total))
    for one in times:
        current = next((owner[value] for value in one.values if value in owner), current)
        total[current] += one.microseconds
    return total


def _quantizing(times: Sequence[LayerTime], graph: Any, elements: int) -> tuple[float, float]:
    """Microseconds of quantizing: for any kernel, as the shortest takes, and for one value, as the network's input is.

    The latter is 0 where that is no kernel of its own.
    """
    overhead = min((one.microseconds for one in times if one.microseconds > 0), default=0.0)
    names = {node.output[0] for node in graph.model.graph.node if set(node.input) & graph.inputs}
    inputs = [one.microseconds for one in times if set(one.values) <= names and one.values]
    return overhead, max(sum(inputs) - overhead, 0.0) / elements


def _sizes(graph: Any) -> dict[str, int]:
    """Elements of every value of one sample."""
    from edgekd.lower.graph import value_shapes

    return {name: math.prod(size or 1 for size in shape) for name, shape in value_shapes(graph.model).items()}
