"""Where the time of two files of one network goes, by kind of kernel: why one is slower than the other."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekd.backends import Backend
from edgekd.forms import CompiledModel, LayerTime
from edgekd.lower.graph import Graph
from edgekd.lower.segments import segments
from edgekd.target import Target

# Profiles of each file, in turns, since the machine's speed wanders; each is itself the median of many runs.
ROUNDS = 5
# Kinds that a printed row tells.
TOLD = 3


def compare_profiles(
    backend: Backend,
    target: Target,
    ours: CompiledModel,
    peer: CompiledModel,
    feeds: dict[str, np.ndarray],
    rounds: int = ROUNDS,
) -> dict[str, Any] | None:
    """Microseconds of one run, and kernels, by kind in either file; the kind that differs most first.

    Medians of ``rounds`` profiles. Their sum is no latency, since the profiler costs time. None where the runtime tells
    no times.
    """
    pair = (ours, peer)
    found: list[list[list[LayerTime]]] = [[], []]
    for turn in range(rounds):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            found[side].append(backend.profile(pair[side], target, feeds))
    if not all(times for profiles in found for times in profiles):
        return None
    # Convolutions are told apart in both files or in none: OpenVINO's own format knows no names of ONNX values.
    known = all(one.path.suffix == ".onnx" for one in pair)
    shapes = [_convolutions(one.path) if known else {} for one in pair]
    ours_by, peer_by = (_by_kind(profiles, shape) for profiles, shape in zip(found, shapes, strict=True))
    kinds = []
    for kind in ours_by | peer_by:
        (our_us, our_kernels), (peer_us, peer_kernels) = (by.get(kind, (0.0, 0)) for by in (ours_by, peer_by))
        difference = round(our_us - peer_us, 1)
        kinds.append(
            {
                "kind": kind,
                "difference_us": difference,
                "ours_us": our_us,
                "peer_us": peer_us,
                "ours_kernels": our_kernels,
                "peer_kernels": peer_kernels,
            }
        )
    return {
        "rounds": rounds,
        "threads": target.runtime.threads,
        "ours_us": round(sum(us for us, _ in ours_by.values()), 1),
        "peer_us": round(sum(us for us, _ in peer_by.values()), 1),
        "kinds": sorted(kinds, key=lambda one: -abs(one["difference_us"])),
    }


def told(profile: dict[str, Any]) -> str:
    """The kinds that differ most, for people, as "QLinearConv 1x1 +31 µs of 955 (28 and 28 kernels)"."""
    return ", ".join(
        f"{one['kind']} {one['difference_us']:+.0f} µs of {one['ours_us']:.0f} "
        f"({one['ours_kernels']} and {one['peer_kernels']} kernels)"
        for one in profile["kinds"][:TOLD]
    )


def _by_kind(profiles: list[list[LayerTime]], shapes: dict[str, str]) -> dict[str, tuple[float, int]]:
    """Median microseconds over the profiles, and the most kernels: what is too short for the clock is not told."""
    kinds = [[_kind(one, shapes) for one in times] for times in profiles]
    found = {}
    for kind in dict.fromkeys(kind for row in kinds for kind in row):
        sums = [
            sum(one.microseconds for one, its in zip(times, row, strict=True) if its == kind)
            for times, row in zip(profiles, kinds, strict=True)
        ]
        found[kind] = round(statistics.median(sums), 1), max(row.count(kind) for row in kinds)
    return found


def _kind(one: LayerTime, shapes: dict[str, str]) -> str:
    """As the runtime names the operator; OpenVINO's names do not tell integers from floats."""
    words = [one.op]
    if "Conv" in one.op:
        words += dict.fromkeys(shapes[value] for value in one.values if value in shapes)
    if one.integer and not one.op.startswith("Q"):
        words.append("int8")
    return " ".join(words)


def _convolutions(path: Path) -> dict[str, str]:
    """By value, which convolution computes it or is followed by it: "grouped" (depthwise ones too) or "1x1".

    Not those that are neither.
    """
    graph = Graph(onnx.load(path))
    shapes = {}
    for value, first in segments(graph).items():
        node = graph.producer[first]
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        if node.op_type == "Conv" and attributes.get("group", 1) > 1:
            shapes[value] = "grouped"
        elif node.op_type == "Conv" and set(attributes.get("kernel_shape", ())) == {1}:
            shapes[value] = "1x1"
    return shapes
