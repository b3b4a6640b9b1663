"""Models by name: known ones, near misses, wrong arguments, the user's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import BadModel
from edgekd.models import build_model, check_classes
from edgekd.models.registry import OWN

SHAPE = (1, 28, 28)


def build(spec: str, *, classes: int = 7, shape: tuple[int, ...] = SHAPE, **args) -> nn.Module:
    return build_model(spec, classes=classes, input_shape=shape, args=args).eval()


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", sorted(OWN))
@pytest.mark.parametrize("shape", [SHAPE, (3, 32, 32), (2, 13, 40)])
@pytest.mark.parametrize("act", ["relu", "relu6", "hardswish"])
def test_own_networks_take_any_image(name: str, shape: tuple[int, ...], act: str) -> None:
    net = build(f"edgekd:{name}", shape=shape, act=act, width=0.5)
    assert net(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "thousands"), [("resnet-s", 657), ("resnet-xs", 92), ("dscnn-s", 21), ("mobilenet-xs", 48)]
)
def test_sizes_are_as_documented(name: str, thousands: int) -> None:
    assert parameters(build(f"edgekd:{name}", classes=10)) / 1000 == pytest.approx(thousands, rel=0.05)


def test_width_scales_in_steps_of_eight_channels() -> None:
    net = build("edgekd:resnet-xs", width=0.3)
    channels = {module.out_channels for module in net.modules() if isinstance(module, nn.Conv2d)}
    assert channels == {8, 16}
    assert parameters(net) < parameters(build("edgekd:resnet-xs"))


def test_libraries() -> None:
    assert build("torchvision:mobilenet_v3_small", shape=(3, 64, 64))(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    assert build("timm:resnet18", shape=(2, 64, 64))(torch.zeros(1, 2, 64, 64)).shape == (1, 7)


def test_fresh_weights_follow_the_seed() -> None:
    one, other, third = (torch.manual_seed(seed) and build("edgekd:resnet-xs") for seed in (1, 1, 2))
    weights = [net.head.linear.weight for net in (one, other, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("edgekd:resnet-xx", "unknown model edgekd:resnet-xx\n.*did you mean 'resnet-xs'"),
        ("torchvision:resnet19", "unknown model torchvision:resnet19\n.*did you mean 'resnet1[08]"),
        ("torchvision:fasterrcnn_resnet50_fpn", "unknown model torchvision:fasterrcnn"),
        ("timm:resnet18x", "unknown model timm:resnet18x\n.*did you mean 'resnet18"),
        ("edgekd:zzzzz", "known: dscnn-s, mobilenet-xs, resnet-s, resnet-xs"),
        ("resnet18", "'resnet18' is no model name\n.*torchvision:NAME"),
        ("torchvision:", "is no model name"),
        ("no_such_module:make", "there is no module 'no_such_module'"),
        ("user_models:nothing", "has no callable 'nothing'"),
        ("user_models:no_module", "returned dict, not a torch.nn.Module"),
        ("user_models:failing", "RuntimeError: not today"),
    ],
)
def test_unknown(spec: str, match: str) -> None:
    with pytest.raises(BadModel, match=match) as error:
        build(spec)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("spec", "args", "match"),
    [
        ("edgekd:resnet-xs", {"widht": 2}, "widht"),
        ("edgekd:resnet-xs", {"act": "gelu"}, "unknown activation 'gelu'; known: relu, relu6, hardswish"),
        ("torchvision:resnet18", {"depth": 2}, "depth"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "edgekd downloads none"),
        ("timm:resnet18", {"pretrained": True}, "edgekd downloads none"),
        ("timm:resnet18", {"nonsense": 1}, "nonsense"),
        ("user_models:plain", {"height": 1}, "height"),
    ],
)
def test_wrong_arguments(spec: str, args: dict, match: str) -> None:
    with pytest.raises(BadModel, match=match):
        build(spec, **args)


def test_own_networks_want_images() -> None:
    with pytest.raises(BadModel, match=r"channels, height and width; the data has the shape \(2, 50\)"):
        build("edgekd:resnet-xs", shape=(2, 50))


def test_factories_get_what_they_name() -> None:
    net = build("user_models:plain", shape=(5,), width=3)
    assert [net[1].in_features, net[1].out_features, net[2].out_features] == [5, 3, 7]
    assert isinstance(build("user_models:knows_nothing"), nn.Linear)


def test_class_counts() -> None:
    check_classes(3, ["a", "b", "c"], where="student")
    with pytest.raises(BadModel, match="teacher: the model has 10 outputs, the data has 3 classes") as error:
        check_classes(10, ["a", "b", "c"], where="teacher")
    assert "made for this data's classes" in error.value.remedy
