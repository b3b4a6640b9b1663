"""Models by name: torchvision:NAME, timm:NAME, edgekd:NAME, or package.module:factory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from edgekd.errors import BadModel, missing_package
from edgekd.models import mobile, resnet
from edgekd.user_code import call, load_callable
from edgekd.yaml_source import nearest

OWN: dict[str, Callable[..., nn.Module]] = {
    "resnet-s": resnet.resnet_s,
    "resnet-xs": resnet.resnet_xs,
    "dscnn-s": mobile.dscnn_s,
    "mobilenet-xs": mobile.mobilenet_xs,
}


def build_model(spec: str, *, classes: int, input_shape: tuple[int, ...], args: dict[str, Any]) -> nn.Module:
    """A model with fresh weights; pretrained ones are never downloaded.

    ``classes`` and ``input_shape`` (C, H, W, without the batch) come from the data; a user's factory gets those of
    ``classes`` and ``input_shape`` that it names as parameters, and ``args``.

    Raises:
        BadModel: an unknown name, or arguments that the model does not take.
        Missing: the library is not installed.
    """
    family, separator, name = spec.partition(":")
    if not separator or not name:
        raise BadModel(
            f"{spec!r} is no model name",
            remedy="write torchvision:NAME, timm:NAME, edgekd:NAME or package.module:factory",
        )
    try:
        if family == "edgekd":
            return _own(name, classes, input_shape, args)
        if family == "torchvision":
            return _torchvision(name, classes, args)
        if family == "timm":
            return _timm(name, classes, input_shape, args)
        given = {"classes": classes, "input_shape": input_shape}
        wanted = inspect.signature(load_callable(spec, BadModel)).parameters
        module = call(spec, BadModel, **{key: value for key, value in given.items() if key in wanted}, **args)
    except (TypeError, ValueError, RuntimeError, AssertionError, AttributeError) as error:
        raise BadModel(f"{spec} cannot be made with args {args}: {error}", remedy="mend the model's args") from error
    if not isinstance(module, nn.Module):
        raise BadModel(f"{spec} returned {type(module).__name__}, not a torch.nn.Module")
    return module


def check_classes(outputs: int, classes: Sequence[str], *, where: str) -> None:
    """That a model has one output a class of the data.

    Raises:
        BadModel: it has another number.
    """
    if outputs != len(classes):
        raise BadModel(
            f"the model has {outputs} outputs, the data has {len(classes)} classes",
            where=where,
            remedy="give teacher and student models (and weights) that were made for this data's classes",
        )


def _own(name: str, classes: int, input_shape: tuple[int, ...], args: dict[str, Any]) -> nn.Module:
    if name not in OWN:
        raise BadModel(f"unknown model edgekd:{name}", remedy=nearest(name, list(OWN)))
    if len(input_shape) != 3:
        raise BadModel(
            f"edgekd:{name} takes samples of channels, height and width; the data has the shape {input_shape}",
            remedy="reshape the samples, or give a model of your own: package.module:factory",
        )
    return OWN[name](classes=classes, input_shape=input_shape, **args)


def _torchvision(name: str, classes: int, args: dict[str, Any]) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise BadModel(f"unknown model torchvision:{name}", remedy=nearest(name, known))
    _refuse_downloads("weights", args)
    return models.get_model(name, **({"weights": None, "num_classes": classes} | args))


def _timm(name: str, classes: int, input_shape: tuple[int, ...], args: dict[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise missing_package("timm", "timm") from None
    if not timm.is_model(name):
        raise BadModel(f"unknown model timm:{name}", remedy=nearest(name, timm.list_models()))
    _refuse_downloads("pretrained", args)
    return timm.create_model(name, **({"pretrained": False, "num_classes": classes, "in_chans": input_shape[0]} | args))


def _refuse_downloads(key: str, args: dict[str, Any]) -> None:
    if args.get(key):
        raise BadModel(
            f"args may not ask for {key}: edgekd downloads none",
            where=f"args.{key}",
            remedy="fetch the weights yourself, save them as safetensors, and name the file in weights",
        )
