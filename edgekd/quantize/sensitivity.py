"""What each layer costs in accuracy when it alone is quantized.

The noise that one layer's quantizers make in the network's output is nearly independent of the others', so its order
tells which layers to keep in float first (Zandonati et al., "FIT", 2022, compares such metrics; NVIDIA's
pytorch-quantization toolkit sorts by the same measurement).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.fx import Node
from torchao.quantization.pt2e import FakeQuantizeBase

from edgekd.quantize.names import OUTPUT
from edgekd.quantize.operators import CLIPS, WEIGHTED
from edgekd.quantize.prepared import Prepared
from edgekd.quantize.weighted import quantizer_at

# Samples at least: a few images of some hundred logits already order the layers; and at most, for small networks.
LEAST, MOST = 4, 256
# Above this the layer changes nothing that float32 could show.
HIGHEST_DB = 120.0


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer: ``name`` of the master's value that it computes, and what quantizing it alone does to the logits.

    ``snr_db``: power of the float logits over that of the difference, in dB; ``agreement``: share of the samples with
    the same decision. Both None where the time ran out.
    """

    name: str
    snr_db: float | None
    agreement: float | None


@dataclass(frozen=True)
class Sensitivity:
    """All layers in the order of computing, on how many samples, and the seconds that it took."""

    layers: tuple[LayerSensitivity, ...]
    samples: int
    seconds: float

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1))


def measure_sensitivity(prepared: Prepared, samples: Tensor, *, seconds: float) -> Sensitivity:
    """Run ``samples`` (N, ...) once for each layer, with the quantizers of its data, weight and output on.

    As many samples are used as ``seconds`` allow, 4 to 256; a network so slow that not even 4 are done in twice the
    time gets its last layers unmeasured. ``prepared`` is left as it was.
    """
    began = time.monotonic()
    sites = list(_sites(prepared))
    with prepared.frozen(), prepared.floating(), torch.no_grad():
        exact, count = _reference(prepared, samples, len(sites), seconds, began)
        found = []
        for name, quantizers in sites:
            late = time.monotonic() - began > 2 * seconds
            one = None if late else _alone(prepared, name, quantizers, samples[:count], exact)
            found.append(one or LayerSensitivity(name, None, None))
    return Sensitivity(tuple(found), count, round(time.monotonic() - began, 3))


def _reference(prepared: Prepared, samples: Tensor, layers: int, seconds: float, began: float) -> tuple[Tensor, int]:
    """The float logits of as many samples as can be run for every layer in the time, and how many these are."""
    few = samples[:LEAST]
    prepared.module(few)  # the first run also allocates
    start = time.monotonic()
    exact = prepared.module(few)
    each = (time.monotonic() - start) / len(few)
    left = seconds - (time.monotonic() - began)
    count = min(MOST, len(samples), max(LEAST, int(left / max(each * (layers + 1), 1e-9))))
    return (exact if count <= len(few) else prepared.module(samples[:count])), count


def _alone(
    prepared: Prepared, name: str, quantizers: list[FakeQuantizeBase], samples: Tensor, exact: Tensor
) -> LayerSensitivity:
    for quantizer in quantizers:
        quantizer.enable_fake_quant(True)
    logits = prepared.module(samples)
    for quantizer in quantizers:
        quantizer.enable_fake_quant(False)
    signal, noise = (float(value.double().square().mean()) for value in (exact, logits - exact))
    ratio = 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else HIGHEST_DB
    agreement = float((logits.argmax(1) == exact.argmax(1)).double().mean())
    return LayerSensitivity(name, round(min(ratio, HIGHEST_DB), 2), agreement)


def _sites(prepared: Prepared) -> Iterator[tuple[str, list[FakeQuantizeBase]]]:
    """Each weighted layer that has quantizers: the name of its value in the master, and these."""
    (output,) = prepared.module.graph.output_node().all_input_nodes
    for node in prepared.module.graph.nodes:
        if node.target not in WEIGHTED:
            continue
        near = [*node.args, *_behind(node)]
        found = [quantizer for one in near if (quantizer := quantizer_at(prepared.module, one)) is not None]
        if found:
            yield OUTPUT if node is output else node.name, found


def _behind(node: Node) -> list[Node]:
    """What reads a layer's value, through a ReLU that is fused into it."""
    users = list(node.users)
    if len(users) == 1 and users[0].target in CLIPS:
        users = list(users[0].users)
    return users
