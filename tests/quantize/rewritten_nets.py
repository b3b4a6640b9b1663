"""Small networks for the rewrites before quantization, and what becomes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.quantize import prepare
from edgekd.quantize.prepared import Prepared

RANDOM = torch.Generator().manual_seed(0)


def norm(channels: int) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(channels)
    made.weight.data.uniform_(0.5, 2, generator=RANDOM)
    made.bias.data.normal_(generator=RANDOM)
    made.running_mean.normal_(generator=RANDOM)
    made.running_var.uniform_(0.5, 2, generator=RANDOM)
    return made


class Net(nn.Module):
    """Parts by name and a function of them and the input."""

    def __init__(self, run: Callable[[nn.Module, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x).flatten(2).mean(-1)


def rewritten(net: Net, *shape: int) -> tuple[Prepared, Counter[str]]:
    """The prepared network, which still computes the same, and its operators by name."""
    torch.manual_seed(0)
    net.eval()
    x = torch.randn(3, *shape)
    made = prepare(net, x[:2])
    with torch.no_grad():
        wanted = net(x).numpy()
    assert np.abs(made.run_float(x.numpy()) - wanted).max() <= 1e-5 * np.abs(wanted).max()
    names = [node.target._schema.name.removeprefix("aten::") for node in made.module.graph.nodes if _is_operator(node)]
    return made, Counter(names)


def _is_operator(node: torch.fx.Node) -> bool:
    return node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)


def conv(inside: int, out: int, kernel: int, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inside, out, kernel, padding=kernel // 2, **options)
