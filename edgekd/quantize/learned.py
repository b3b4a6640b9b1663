"""Fake-quantize modules whose scale is learned with the weights (LSQ).

Esser et al., "Learned Step Size Quantization", ICLR 2020: the gradient reaches the scale through what is rounded and
what is clipped. Three things differ from the paper. The start is the calibrated scale. What is trained is the
logarithm of the scale over its start (Jain et al., "Trained Quantization Thresholds", 2020), so that it stays positive
and a step of the optimizer is a share of the scale. And the gradient is not scaled by 1 / sqrt(N Qp), N being the
values that share a scale: the paper trains with SGD, while AdamW divides by the gradient's size anyway, and the scaled
ones were below its eps of 1e-8 for nine scales in ten (measured on edgekd's students), which would have stood still.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchao.quantization.pt2e import FakeQuantizeBase

from edgekd.quantize.prepared import Prepared


def learn_scales(prepared: Prepared) -> None:
    """Put in place of every quantizer of ``prepared``, calibrated, one that starts with its scale and learns it."""
    made: dict[FakeQuantizeBase, LearnedScale] = {}
    for name, quantizer in list(prepared.module.named_modules(remove_duplicate=False)):
        if isinstance(quantizer, FakeQuantizeBase):
            made.setdefault(quantizer, LearnedScale(quantizer))
            parent, _, own = name.rpartition(".")
            setattr(prepared.module.get_submodule(parent), own, made[quantizer])


class LearnedScale(FakeQuantizeBase):  # type: ignore[misc]
    """Symmetric, with the codes, axis and scale of the module that it replaces; there is nothing to observe."""

    def __init__(self, calibrated: FakeQuantizeBase) -> None:
        super().__init__()
        self.dtype, self.qscheme = calibrated.dtype, calibrated.qscheme
        self.quant_min, self.quant_max = calibrated.quant_min, calibrated.quant_max
        self.ch_axis, self.is_per_channel = calibrated.ch_axis, calibrated.is_per_channel
        self.is_dynamic = False
        scale, _ = calibrated.calculate_qparams()
        self.register_buffer("start", scale.detach().clone().float().reshape(-1))
        self.change = nn.Parameter(torch.zeros_like(self.start))
        self.register_buffer("zero_point", torch.zeros_like(self.start))
        self.enable_observer(False)

    @property
    def scale(self) -> Tensor:
        """(1,) or (channels,) > 0."""
        return self.start * self.change.exp()

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point for conversion."""
        scale = self.scale.detach()
        return scale, torch.zeros_like(scale, dtype=torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` rounded to the grid of the scale."""
        if not self.fake_quant_enabled[0]:
            return x
        codes = (self.quant_min, self.quant_max)
        if self.is_per_channel:
            return torch._fake_quantize_learnable_per_channel_affine(
                x, self.scale, self.zero_point, self.ch_axis, *codes
            )
        return torch._fake_quantize_learnable_per_tensor_affine(x, self.scale, self.zero_point, *codes)
