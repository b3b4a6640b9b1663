"""The quantized network in the numbers of a backend's form, by which a build is judged that makes no coarser one.

The master's activations have the coarsest codes that any backend uses: 127 steps where a value cannot be negative, and
codes below a floor that is never reached. Most forms write finer ones. Weights are the same in all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import FakeQuantizeBase

from edgekd.forms import Site
from edgekd.quantize.clipping import STEPS as MASTER_STEPS
from edgekd.quantize.clipping import Steps
from edgekd.quantize.master import rehearse_master
from edgekd.quantize.names import INPUT
from edgekd.quantize.observers import observes_weight
from edgekd.quantize.prepared import Prepared
from edgekd.quantize.weighted import quantizer_at

# Scale and zero point of a site; the zero point's type tells the codes.
Numbers = Callable[[Site], tuple[np.ndarray, np.ndarray]]


class Written:
    """Called with a calibrated network of the graph of ``untouched``, gives a copy with the activations of ``numbers``.

    ``batches`` are what the network takes, at least two samples.
    """

    def __init__(self, untouched: Prepared, batches: Iterable[Tensor], numbers: Numbers) -> None:
        self.untouched, self.numbers = untouched, numbers
        first = next(iter(batches))
        # Signs and floors are the master's, so that they are found in one place.
        sites = rehearse_master(untouched.copy(), torch.cat([first[:1], first[-1:]]))
        self.sites = {site.tensor: site for site in sites}

    def __call__(self, prepared: Prepared) -> GraphModule:
        """A copy; ``prepared`` stays as it is."""
        module = copy.deepcopy(prepared.module)
        for index, (node, (quantizer, site)) in enumerate(self._places(module).items()):
            if site is not None:
                scale, _ = quantizer.calculate_qparams()
                module.add_submodule(f"written_{index}", _Rounding(*self.numbers(replace(site, scale=float(scale)))))
                node.target = f"written_{index}"
        module.recompile()
        return module

    def steps(self) -> dict[str, Steps]:
        """The grids of these numbers, by the quantizers' names."""
        places = self._places(self.untouched.module).values()
        sites = {quantizer: site for quantizer, site in places if site is not None}
        return {
            name: partial(self._steps, sites[quantizer])
            for name, quantizer in self.untouched.quantizers()
            if quantizer in sites
        }

    def _steps(self, site: Site, end: float) -> int:
        scale, _ = self.numbers(replace(site, scale=end / MASTER_STEPS))
        return round(end / float(scale))

    def _places(self, module: GraphModule) -> dict[Node, tuple[FakeQuantizeBase, Site | None]]:
        """Where activations are quantized, by what, and the site there."""
        places = {node: one for node in module.graph.nodes if (one := _activation_quantizer(module, node))}
        own = {node: self.sites[name] for node in places if (name := _name(node.args[0])) in self.sites}
        shared = {places[node]: site for node, site in own.items()}
        # Where the master dropped a site that only repeats the one in front, it has the numbers of that one.
        return {node: (quantizer, own.get(node, shared.get(quantizer))) for node, quantizer in places.items()}


class _Rounding(nn.Module):
    """Fake-quantizes a whole activation with one scale and zero point."""

    def __init__(self, scale: np.ndarray, zero_point: np.ndarray) -> None:
        super().__init__()
        codes = np.iinfo(zero_point.dtype)
        self.numbers = float(scale), int(zero_point), int(codes.min), int(codes.max)

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, *self.numbers)


def _activation_quantizer(module: GraphModule, node: Node) -> FakeQuantizeBase | None:
    quantizer = quantizer_at(module, node)
    return None if quantizer is None or observes_weight(quantizer) else quantizer


def _name(node: Node) -> str:
    """A value's name in the master."""
    return INPUT if node.op == "placeholder" else node.name
