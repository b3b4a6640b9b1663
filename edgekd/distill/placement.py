"""Where and in which form a network computes: device, mixed precision, memory format, training mode."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import nn

Precision = Literal["auto", "32", "bf16"]


def make_fabric(precision: Precision) -> Fabric:
    """One device, a GPU where there is one.

    ``auto`` is bfloat16 mixed precision on a GPU that has it, and float32 on CPUs: measured there (Zen 4 with
    avx512_bf16), bfloat16 halves a plain ResNet's step but slows down depthwise networks and small images.
    """
    gpu = torch.cuda.is_available()
    mixed = precision == "bf16" or (precision == "auto" and gpu and torch.cuda.is_bf16_supported())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Fabric(accelerator="gpu" if gpu else "cpu", devices=1, precision="bf16-mixed" if mixed else "32-true")


def memory_format(
    model: nn.Module, input_shape: tuple[int, ...], channels_last: bool | Literal["auto"]
) -> torch.memory_format:
    """The memory format of weights and inputs.

    ``auto`` is channels last wherever the network convolves images and takes it: it was faster for every network
    measured, in float32 too (10 to 50 % a step).
    """
    images = len(input_shape) == 3
    if channels_last is True:
        return torch.channels_last if images else torch.contiguous_format
    convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
    # Exported graphs have reshapes written for contiguous tensors; they hold no Conv2d modules.
    if channels_last is False or not images or not convolves:
        return torch.contiguous_format
    return torch.channels_last if _takes_channels_last(model, input_shape) else torch.contiguous_format


def switch_mode(model: nn.Module, training: bool) -> None:
    """``model.train(training)``, left alone where the graph has no such switch (modules of `torch.export`)."""
    try:
        model.train(training)
    except NotImplementedError:
        return


def _takes_channels_last(model: nn.Module, input_shape: tuple[int, ...]) -> bool:
    """False for networks that call ``view`` on what a convolution gives."""
    training = model.training
    switch_mode(model, False)
    parameter = next(model.parameters())
    x = torch.zeros(2, *input_shape, device=parameter.device)
    try:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.inference_mode():
            model(x.to(memory_format=torch.channels_last))
    except RuntimeError:
        return False
    finally:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        switch_mode(model, training)
    return True
