"""The networks of the benchmarks trained for a short time on Fashion-MNIST: no pretrained weights can be downloaded.

A 224x224 image is 4x4 garments of one class, the label, each resized (bilinear) from 28x28 to 56x56 and half of them
mirrored; all repeated to three channels. Most of the training is on single garments, which cost a sixteenth of such an
image and are of the same scale; some steps on whole images follow, and BatchNorm's statistics anew there: 80 s of a
core of a Zen 4 for mobilenet_v2, 130 s for efficientnet_b0, 450 s for resnet50. Training is seeded and on the CPU;
another CPU or another number of threads rounds otherwise, and other weights come of it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from networks import NETWORKS, bare_network, observe_batch_norms
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.data.fashion_mnist import CLASSES, load_fashion_mnist
from edgekd.data.source import DataSource
from edgekd.models.weights import load_weights, save_weights

GARMENT = 56
# Garments along a side of a 224x224 image.
WHOLE = 4
# What a short training on one core does not reach, and why.
UNTRAINABLE = {"vit_b_16": "it is fixed to 224x224, where training it takes over a second an image"}
TRAINABLE = tuple(name for name in NETWORKS if name not in UNTRAINABLE)
WEIGHT_DECAY, RISING = 0.05, 0.25
# Training images that BatchNorm's statistics come from at last.
STATISTICS, BATCH = 64, 16
# In channels_last PyTorch's backward corrupts its heap.
CONTIGUOUS = ("repvgg_a0",)
# What makes a network learn slower, for the sake of trainings that are much longer.
REGULARIZERS = ("Dropout", "StochasticDepth", "DropPath")


class Phase(NamedTuple):
    """So many images of ``tiles`` x ``tiles`` garments in batches; AdamW, its rates one cycle up to ``rate``."""

    tiles: int
    images: int
    batch: int
    rate: float


PHASES = (Phase(1, 12000, 32, 3e-3), Phase(WHOLE, 480, 16, 1e-3))
# Faster, these learn nothing.
GENTLE = (Phase(1, 12000, 32, 5e-4), Phase(WHOLE, 480, 16, 2e-4))
OTHERS = {
    "convnext_tiny": GENTLE,
    "swin_t": GENTLE,
    # Fixed to 224x224 too, and small enough to be trained there.
    "efficientformerv2_s0": (Phase(WHOLE, 1600, 16, 2e-3),),
}


def trained_network(name: str, seed: int, folder: Path | None, phases: tuple[Phase, ...] = ()) -> nn.Module:
    """The network in evaluation mode, for (N, 3, 224, 224) float32, giving (N, 10) logits.

    ``folder`` keeps its weights, in a file whose name tells network, seed and phases, and gives them the next time.

    Raises:
        ValueError: the name is not in `TRAINABLE`.
        Missing: Fashion-MNIST is not on this machine and cannot be downloaded.
    """
    if name in UNTRAINABLE:
        raise ValueError(f"{name} cannot be trained here: {UNTRAINABLE[name]}")
    phases = phases or OTHERS.get(name, PHASES)
    network = bare_network(name, seed, len(CLASSES))
    told = "-".join(f"{count}x{GARMENT * tiles}px-{rate:g}" for tiles, count, _, rate in phases)
    path = folder / f"{name}-seed{seed}-{told}.safetensors" if folder else None
    if path and path.exists():
        load_weights(network, path)
        return network.eval()
    if name not in CONTIGUOUS:
        network.to(memory_format=torch.channels_last)
    _train(network, seed, phases)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights(network, path)
    return network


def images(split: str, count: int, seed: int, size: int = WHOLE * GARMENT) -> tuple[Tensor, Tensor]:
    """(count, 3, size, size) float32 of Fashion-MNIST's "train" or "test" garments, and labels (count,).

    Image number i of a seed is the same whatever ``count`` is.
    """
    generators = [torch.Generator().manual_seed(seed * 100_003 + i) for i in range(count)]
    pairs = [_images(split, 1, size // GARMENT, generator) for generator in generators]
    return torch.cat([image for image, _ in pairs]), torch.cat([label for _, label in pairs])


def _train(network: nn.Module, seed: int, phases: tuple[Phase, ...]) -> None:
    for module in network.modules():  # some libraries' heads begin with logits far apart
        if isinstance(module, nn.Linear) and module.out_features == len(CLASSES):
            module.reset_parameters()
    generator = torch.Generator().manual_seed(seed)
    for tiles, count, batch, rate in phases:
        steps = count // batch
        optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=RISING)
        network.train()
        for module in network.modules():
            if type(module).__name__ in REGULARIZERS:
                module.eval()
        for _ in range(steps):
            x, labels = _images("train", batch, tiles, generator)
            loss = F.cross_entropy(network(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval().to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        batches = (_images("train", BATCH, phases[-1].tiles, generator)[0] for _ in range(STATISTICS // BATCH))
        observe_batch_norms(network, batches)


@cache
def _source() -> DataSource:
    return load_fashion_mnist(None, 0)


def _images(split: str, count: int, tiles: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    labels = torch.randint(len(CLASSES), (count,), generator=generator)
    known = torch.from_numpy(_source().labels(split))
    picked = []
    for label in labels:
        alike = (known == label).nonzero()[:, 0]
        picked += alike[torch.randint(len(alike), (tiles * tiles,), generator=generator)].tolist()
    garments = torch.stack([_source().sample(split, index)[0] for index in picked])
    mirrored = torch.rand(len(garments), 1, 1, 1, generator=generator) < 0.5
    garments = torch.where(mirrored, garments.flip(-1), garments)
    garments = F.interpolate(garments, size=(GARMENT, GARMENT), mode="bilinear", align_corners=False)
    rows = garments.view(count, tiles, tiles, GARMENT, GARMENT).transpose(2, 3)
    return rows.reshape(count, 1, tiles * GARMENT, tiles * GARMENT).repeat(1, 3, 1, 1), labels
