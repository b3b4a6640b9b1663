"""The networks and samples of the benchmarks: seeded, so that everybody measures the same ones.

No pretrained weights are used (none can be downloaded where this runs; training.py trains some for a short time), so
weights are random, and then made to behave like trained ones where that matters to quantization: BatchNorm has scales
and shifts that differ between channels, and statistics that come from running samples through the network, so that
activations are normalised; what starts at zero (residual scales, LayerScale, biases) gets real values; heads look where
samples differ, so that logits tell them apart instead of repeating one vector. Samples are "dead leaves" images (Lee,
Mumford and Huang, "Occlusion models for natural images", IJCV 2001): occluding discs with power-law radii, whose edges
and spectra are those of photographs, textured by a smooth random field. Latency depends on none of it; accuracy figures
are comparable between files of one network only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TORCHVISION = (
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "shufflenet_v2_x0_5",
    "densenet121",
    "convnext_tiny",
    "swin_t",
    "vit_b_16",
)
TIMM = ("mobilenetv4_conv_small", "repvgg_a0", "efficientformerv2_s0")
NETWORKS = TORCHVISION + TIMM
# Samples whose statistics BatchNorm and heads get, and the seed that makes them others than anybody's.
STATISTICS, STATISTICS_SEED, BATCH = 24, 1_000_003, 12
DISCS = 150
SMALLEST = 3


def make_network(name: str, seed: int = 0) -> nn.Module:
    """The float network of that name in evaluation mode, for (N, 3, 224, 224) float32, giving (N, 1000) logits.

    Raises:
        ValueError: the name is not in `NETWORKS`.
    """
    network = bare_network(name, seed).eval()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        _give_values(network, generator)
        batches = samples(STATISTICS, STATISTICS_SEED + seed).split(BATCH)
        observe_batch_norms(network, batches)
        _make_heads(network, batches, generator)
    return network


def bare_network(name: str, seed: int, classes: int = 1000) -> nn.Module:
    """The network as its library initialises it.

    Raises:
        ValueError: the name is not in `NETWORKS`.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; known are {', '.join(NETWORKS)}")
    torch.manual_seed(seed)
    if name in TIMM:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=classes)
    from torchvision import models

    return models.get_model(name, weights=None, num_classes=classes)


def samples(count: int, seed: int, size: int = 224) -> Tensor:
    """(count, 3, size, size) float32 images of about zero mean and unit variance, as after ImageNet's normalization.

    Sample number i of a seed is the same whatever ``count`` is.
    """
    return torch.stack([_dead_leaves(torch.Generator().manual_seed(seed * 100_003 + i), size) for i in range(count)])


def _dead_leaves(generator: torch.Generator, size: int) -> Tensor:
    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    # Radii with density r**-3 between the smallest and half the image, which makes statistics the same at all scales.
    low, high = SMALLEST**-2.0, (size / 2) ** -2.0
    radii = (low - uniform(DISCS) * (low - high)) ** -0.5
    radii[: DISCS // 5] = size * (0.15 + 0.35 * uniform(DISCS // 5))  # the ground, so that nothing stays blank
    centres, colours = uniform(DISCS, 2) * size, uniform(DISCS, 3)
    grid = torch.arange(size, dtype=torch.float32) + 0.5
    owner = torch.zeros(size, size, dtype=torch.long)
    for index in range(DISCS):  # what falls later lies above
        row, column = centres[index]
        inside = (grid[:, None] - row) ** 2 + (grid[None, :] - column) ** 2 < radii[index] ** 2
        owner[inside] = index
    image = colours[owner].permute(2, 0, 1)
    contrast = 0.3 * uniform(DISCS)[owner]
    texture = torch.zeros(1, 1, size, size)
    for cells in (7, 28, 112):
        field = torch.randn(1, 1, cells, cells, generator=generator)
        texture += F.interpolate(field, size=(size, size), mode="bicubic", align_corners=False)
    # Photographs differ in brightness and contrast.
    bright, wide = 0.2 * (uniform(1) - 0.5), 0.6 + 0.8 * uniform(1)
    image = (image - 0.5) * wide + 0.5 + bright + contrast * texture[0] / math.sqrt(3)
    return (image.clamp(0, 1) - 0.45) / 0.25


def _give_values(network: nn.Module, generator: torch.Generator) -> None:
    """Real values for what starts the same in every channel: norms, residual scales, biases, tokens."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm) and module.weight is not None:
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.normal_(0, 0.3, generator=generator)
    for name, parameter in network.named_parameters():
        if name.rpartition(".")[2] in ("layer_scale", "gamma"):
            parameter.uniform_(0.2, 1.0, generator=generator)
        elif not parameter.any():
            parameter.normal_(0, 0.1, generator=generator)


def observe_batch_norms(network: nn.Module, batches: Any) -> None:
    """Statistics averaged over the batches, everything else (dropout, stochastic depth) in evaluation mode."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None
        module.train()
    for batch in batches if norms else ():
        network(batch)
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
        module.eval()


def _make_heads(network: nn.Module, batches: Any, generator: torch.Generator) -> None:
    """Heads that look where the samples differ: every class a random mixture of samples, as a mean of samples would be.

    Logits then have mean 0 and variance 1 over the samples.
    """
    heads = [module for module in network.modules() if isinstance(module, nn.Linear) and module.out_features == 1000]
    seen: list[list[Tensor]] = [[] for _ in heads]

    def keeper(kept: list[Tensor]) -> Callable[..., None]:
        return lambda module, inputs: kept.append(inputs[0])

    hooks = [head.register_forward_pre_hook(keeper(kept)) for head, kept in zip(heads, seen, strict=True)]
    for batch in batches:
        network(batch)
    for hook in hooks:
        hook.remove()
    for head, kept in zip(heads, seen, strict=True):
        features = torch.cat(kept)
        apart = features - features.mean(0)
        head.weight.copy_(torch.randn(head.out_features, len(apart), generator=generator) @ apart)
        head.weight /= (apart @ head.weight.T).std(0).mean()
        head.bias.copy_(-(head.weight @ features.mean(0)))
