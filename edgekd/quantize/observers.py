"""The fake-quantize modules that sites are made of."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torchao.quantization.pt2e import (
    FakeQuantize,
    FakeQuantizeBase,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantizer import QuantizationSpec

# The smallest scale: the library's default of 2**-12 floors the small scales of mobile networks.
EPS = 2**-24
HIGHEST = 127


class Symmetric:
    """Scale: the largest magnitude in 127 steps; NaN where that is no number, which calibration and losses tell.

    The library asserts instead, and with a lowest code of -128 it would take 127.5 steps.
    """

    def _calculate_qparams(self, min_val: Tensor, max_val: Tensor) -> tuple[Tensor, Tensor]:
        if min_val.numel() == 0 or bool((min_val == torch.inf).any()):  # nothing was observed
            return torch.ones(1), torch.zeros(1, dtype=torch.int64)
        scale = (torch.max(-min_val, max_val) / HIGHEST).clamp(min=EPS)
        scale = torch.where(torch.isfinite(scale), scale, torch.nan)
        return scale, torch.zeros_like(scale, dtype=torch.int64)


class TensorRange(Symmetric, MovingAverageMinMaxObserver):  # type: ignore[misc]
    """One scale for a whole activation, of ``ratio`` of its range, which calibration sets.

    It is 1 where nothing but zeros was seen, so that what comes later is not wiped out; ONNX Runtime's calibration does
    the same (onnxruntime/python/tools/quantization/quant_utils.py).

    Where a quantizer sits in several ``places`` of the graph, the extremes of all of them are one batch's.
    """

    ratio: Tensor

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.register_buffer("ratio", torch.ones(()))
        self.places = 1
        self._seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Average the extremes of ``x`` in, at the last place of a forward pass those of all places at once.

        One average a place would end between the places' ranges, and clip the widest.
        """
        self._seen += torch.aminmax(x.detach())
        if len(self._seen) == 2 * self.places:
            super().forward(torch.stack(self._seen))
            self._seen = []
        return x

    def _calculate_qparams(self, min_val: Tensor, max_val: Tensor) -> tuple[Tensor, Tensor]:
        scale, zero_point = super()._calculate_qparams(self.ratio * min_val, self.ratio * max_val)
        return torch.where((min_val == 0) & (max_val == 0), torch.ones_like(scale), scale), zero_point


class ChannelRange(Symmetric, MovingAveragePerChannelMinMaxObserver):  # type: ignore[misc]
    """One scale an output channel."""


def observes_weight(quantizer: FakeQuantizeBase) -> bool:
    """Whether a quantizer sits on a weight, not on an activation. Only weights have a scale a channel."""
    # Not by its observer: quantizers of learned scales have none.
    return bool(quantizer.is_per_channel)


def count_places(module: GraphModule) -> None:
    """Tell the range of every activation in how many places of the graph its quantizer sits."""
    calls = Counter(module.get_submodule(str(node.target)) for node in module.graph.nodes if node.op == "call_module")
    for called, count in calls.items():
        if isinstance(called, FakeQuantizeBase) and not observes_weight(called):
            called.activation_post_process.places = count


def set_range(quantizer: FakeQuantizeBase, lowest: float, highest: float, *, ratio: float = 1.0) -> None:
    """Let an activation's quantizer have seen ``lowest`` to ``highest``, of which it uses ``ratio``."""
    observer = quantizer.activation_post_process
    observer.min_val.fill_(lowest)
    observer.max_val.fill_(highest)
    observer.ratio.fill_(ratio)
    scale, zero_point = quantizer.calculate_qparams()
    quantizer.scale.resize_(scale.shape).copy_(scale)
    quantizer.zero_point.resize_(zero_point.shape).copy_(zero_point)


def activation_spec(averaging: float) -> QuantizationSpec:
    """Symmetric int8 per tensor, range by a moving average with weight ``averaging`` for the newest batch.

    Codes from -128: engines do not clip below it, so training must not either.
    """
    return _spec(TensorRange, torch.per_tensor_symmetric, lowest=-128, averaging=averaging)


def weight_spec() -> QuantizationSpec:
    """Symmetric int8 per output channel in ±127; the range is that of the weights as they are now, until it is frozen.

    Frozen, weights that grow beyond it are clipped.
    """
    return _spec(ChannelRange, torch.per_channel_symmetric, lowest=-HIGHEST, averaging=1.0, ch_axis=0)


def _spec(observer: type, scheme: torch.qscheme, *, lowest: int, averaging: float, **axis: int) -> QuantizationSpec:
    codes: dict[str, Any] = {"dtype": torch.int8, "quant_min": lowest, "quant_max": HIGHEST, "qscheme": scheme} | axis
    constructor = FakeQuantize.with_args(observer=observer, averaging_constant=averaging, **codes)
    return QuantizationSpec(observer_or_fake_quant_ctr=constructor, **codes)
