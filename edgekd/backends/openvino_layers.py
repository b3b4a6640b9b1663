"""What OpenVINO's CPU plugin made of a model, layer by layer, products inside its Subgraphs included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.forms import LayerInfo
from edgekd.runtime.session_openvino import openvino_core

_COMPUTE = {"Convolution", "Deconvolution", "FullyConnected", "MatMul", "Gemm", "InnerProduct"}
INTEGER = {"u8", "i8"}
_NOT_RUN = {"Input", "Output", "Const"}
_PRODUCTS = ("MatMul", "Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData")


def layers_of(compiled: Any) -> tuple[list[LayerInfo], list[LayerInfo]]:
    """The layers with products of an ``openvino.CompiledModel``, and the others that run."""
    layers = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        precision = precision_of(info)
        layers.append(LayerInfo(node.friendly_name, text_of(info, "layerType"), precision in INTEGER, precision))
    others = [layer for layer in layers if layer.op not in _COMPUTE | _NOT_RUN]
    return [layer for layer in layers if layer.op in _COMPUTE], others


def compute_layers(path: Path, compiled: Any, options: dict[str, str]) -> list[LayerInfo]:
    """The layers with products of a file and what was ``compiled`` of it with ``options``.

    Attention is one Subgraph, and with AVX-512 so are linear layers in a row. The plugin tells nothing of what is
    inside, but it is put together (snippets) after their precisions are fixed (low precision transformations): compiled
    without snippets, the same products stand alone, in the same precisions.
    """
    found, _ = layers_of(compiled)
    model = openvino_core().read_model(path)
    if sum(node.get_type_name() in _PRODUCTS for node in model.get_ordered_ops()) == len(found):
        return found
    model.reshape({port: list(other.shape) for port, other in zip(model.inputs, compiled.inputs, strict=True)})
    apart = openvino_core().compile_model(model, "CPU", options | {"SNIPPETS_MODE": "DISABLE"})
    names = {layer.name for layer in found}
    return found + [layer for layer in layers_of(apart)[0] if layer.name not in names]


def precision_of(info: Any) -> str:
    """What a kernel computes in: the end of its name, such as ``brgconv_avx512_1x1_f32``, where I8 stands for u8.

    ``runtimePrecision`` is no measure: it says i8 also of a convolution of floats with weights that are stored in i8.
    """
    ending = text_of(info, "primitiveType").rpartition("_")[2]
    return "u8" if ending == "I8" else ending or text_of(info, "runtimePrecision")


def text_of(info: Any, key: str) -> str:
    """An entry of a node's ``rt_info``, empty where there is none."""
    return str(info[key].astype(str)) if key in info else ""
