"""Real networks with BatchNorm statistics that are not trivial, and their masters, each made once a test run."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.forms import Master
from edgekd.models import build_model
from edgekd.quantize import Prepared, prepare, write_master
from edgekd.target import CalibrationPolicy

# name: (model, its args, the shape of a sample)
NETS: dict[str, tuple[str, dict, tuple[int, ...]]] = {
    "resnet-xs": ("edgekd:resnet-xs", {"width": 0.5}, (1, 20, 20)),
    "resnet-xs-relu6": ("edgekd:resnet-xs", {"act": "relu6"}, (3, 16, 16)),
    "mobilenet-xs": ("edgekd:mobilenet-xs", {}, (1, 20, 20)),
    "mobilenet-xs-relu6": ("edgekd:mobilenet-xs", {"act": "relu6"}, (3, 16, 16)),
    "dscnn-spectrogram": ("edgekd:dscnn-s", {"act": "relu6"}, (1, 13, 40)),
    # densenet121 with two layers in each of its four blocks.
    "densenet": ("torchvision.models:DenseNet", {"num_classes": 10, "block_config": (2, 2, 2, 2)}, (3, 64, 64)),
    **{
        name: (f"torchvision:{name}", {}, (3, 64, 64))
        for name in ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "densenet121")
    },
}


def make_net(name: str, seed: int = 0) -> nn.Module:
    """The network in evaluation mode, ten classes, random weights and statistics."""
    spec, args, shape = NETS[name]
    torch.manual_seed(seed)
    return enliven(build_model(spec, classes=10, input_shape=shape, args=args).eval(), seed)


def enliven(module: nn.Module, seed: int) -> nn.Module:
    """Random running mean and variance, weight (of both signs) and bias in every BatchNorm."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                count = norm.num_features
                norm.running_mean.copy_(torch.randn(count, generator=random) / 2)
                norm.running_var.copy_(0.1 + 2 * torch.rand(count, generator=random))
                if norm.affine:
                    sign = torch.where(torch.rand(count, generator=random) < 0.1, -1.0, 1.0)
                    norm.weight.copy_(sign * (0.25 + 1.5 * torch.rand(count, generator=random)))
                    norm.bias.copy_(torch.randn(count, generator=random) / 2)
    return module


def samples(name: str, count: int = 48, seed: int = 5) -> Tensor:
    """Normal noise in the network's shape."""
    return torch.randn(count, *NETS[name][2], generator=torch.Generator().manual_seed(seed))


@cache
def prepared(name: str) -> Prepared:
    """Prepared and calibrated; shared, so leave it as it is."""
    x = samples(name)
    made = prepare(make_net(name), x[:2], policy=CalibrationPolicy(estimator="moving-average", batch_size=16))
    made.calibrate(x.split(16))
    return made


@cache
def master(name: str) -> Master:
    """The master of `prepared`; shared, so leave its files as they are."""
    folder = tempfile.TemporaryDirectory(prefix="edgekd-master-")
    _kept.append(folder)
    return write_master(prepared(name), samples(name)[:2], Path(folder.name))


_kept: list[tempfile.TemporaryDirectory] = []  # removed when the interpreter ends


def rms(one: np.ndarray, other: np.ndarray) -> float:
    """Root mean square of the difference over that of ``other``."""
    return float(np.sqrt(np.square(one.astype(np.float64) - other).mean() / np.square(other.astype(np.float64)).mean()))
