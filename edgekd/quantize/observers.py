"""The fake-quantize modules that sites are made of."""

from __future__ import annotations

import torch
from torchao.quantization.pt2e import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantizer import QuantizationSpec

# The smallest scale: the library's default of 2**-12 floors the small scales of mobile networks.
EPS = 2**-24
LOWEST, HIGHEST = -127, 127


def activation_spec(averaging: float) -> QuantizationSpec:
    """Symmetric int8 per tensor in ±127, range by a moving average with weight ``averaging`` for the newest batch."""
    constructor = FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver,
        eps=EPS,
        averaging_constant=averaging,
        quant_min=LOWEST,
        quant_max=HIGHEST,
        dtype=torch.int8,
        qscheme=torch.per_tensor_symmetric,
    )
    return QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=constructor,
        quant_min=LOWEST,
        quant_max=HIGHEST,
        qscheme=torch.per_tensor_symmetric,
    )


def weight_spec() -> QuantizationSpec:
    """Symmetric int8 per output channel in ±127; the range is always that of the weights as they are now."""
    constructor = FakeQuantize.with_args(
        observer=MovingAveragePerChannelMinMaxObserver,
        eps=EPS,
        averaging_constant=1.0,
        quant_min=LOWEST,
        quant_max=HIGHEST,
        dtype=torch.int8,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )
    return QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=constructor,
        quant_min=LOWEST,
        quant_max=HIGHEST,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )
