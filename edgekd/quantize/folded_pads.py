"""Zeros that are padded in front of a convolution become its own padding: the same numbers, and one operator less.

No engine has an integer form of Pad, and a convolution pads by itself, in integer kernels with the code of zero. This
is done in the ONNX graph, whose convolutions can have another number at each end, as TensorFlow's "same" wants with a
stride of 2; torch's cannot. The master has no ReLU between the two (`edgekd.quantize.padding`); the float file may.
"""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import onnx
from onnx import helper, numpy_helper


def fold_pads(graph: onnx.GraphProto) -> None:
    """In place. A Pad that others read too stays for them; one that crops, or pads with anything but zeros, stays."""
    _behind_relus(graph)
    view = _View(graph)
    passed: list[onnx.NodeProto] = []
    for node in [node for node in graph.node if node.op_type == "Conv"]:
        # Pads may stand in a row.
        while (between := view.pad_in_front(node)) and (zeros := view.zeros(between[0], len(_pads(node)) // 2)):
            pads = [a + b for a, b in zip(_pads(node), zeros, strict=True)]
            for attribute in [one for one in node.attribute if one.name == "pads"]:
                node.attribute.remove(attribute)
            node.attribute.append(helper.make_attribute("pads", pads))
            node.input[0] = between[0].input[0]
            # What reads comes before what is read.
            passed += reversed(between)
    for node in passed:
        here = any(one.output == node.output for one in graph.node)
        if here and not any(name in node.output for one in graph.node for name in one.input):
            graph.node.remove(node)


def _behind_relus(graph: onnx.GraphProto) -> None:
    """``Relu(Pad(x))`` becomes ``Pad(Relu(x))``, of zeros the same numbers, and of Clip likewise; in place."""
    view = _View(graph)
    readers = Counter([name for node in graph.node for name in node.input] + [value.name for value in graph.output])
    for node in graph.node:
        # Pads may stand in a row.
        while view.keeps_zero(node) and (pad := view.zero_pad(node.input[0])) and readers[pad.output[0]] == 1:
            before, behind = copy.deepcopy(pad), copy.deepcopy(node)
            pad.CopyFrom(behind)
            node.CopyFrom(before)
            pad.input[0], node.input[0] = before.input[0], before.output[0]
            pad.output[:], node.output[:] = before.output, behind.output
            node = pad


class _View:
    """Who makes a value, and the constants."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.producer = {name: node for node in graph.node for name in node.output}
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    def pad_in_front(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The Pad in front of a convolution, and the site between them where there is one; none if it must stay."""
        if any(one.name == "auto_pad" and one.s != b"NOTSET" for one in node.attribute):
            return []
        behind = self.site(node.input[0])
        pad = self.producer.get(behind[0].input[0] if behind else node.input[0])
        if pad is None or pad.op_type != "Pad":
            return []
        # Rounded once more by the same numbers, nothing changes; by others, or for the first time, it does.
        return [pad, *behind] if not behind or self.same_numbers(behind, self.site(pad.input[0])) else []

    def site(self, name: str) -> list[onnx.NodeProto]:
        """The Q and DQ that a value comes out of, or nothing."""
        dequantize = self.producer.get(name)
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            return []
        quantize = self.producer.get(dequantize.input[0])
        return [quantize, dequantize] if quantize is not None and quantize.op_type == "QuantizeLinear" else []

    def same_numbers(self, one: list[onnx.NodeProto], other: list[onnx.NodeProto]) -> bool:
        """Whether two sites are there and have one scale and zero point."""
        found = {
            tuple((self.constants[name].dtype.str, self.constants[name].tobytes()) for name in node.input[1:])
            for node in (*one, *other)
        }
        return bool(other) and len(found) == 1

    def zero_pad(self, name: str) -> onnx.NodeProto | None:
        """The Pad that a value comes out of, where it puts constant numbers of zeros."""
        pad = self.producer.get(name)
        if pad is None or pad.op_type != "Pad" or any(one and one not in self.constants for one in pad.input[1:]):
            return None
        constant = not any(one.name == "mode" and one.s != b"constant" for one in pad.attribute)
        value = pad.input[2] if len(pad.input) > 2 else ""
        return pad if constant and not (value and self.constants[value].any()) else None

    def keeps_zero(self, node: onnx.NodeProto) -> bool:
        """Whether a node is a Relu, or a Clip around zero."""
        if node.op_type != "Clip":
            return node.op_type == "Relu"
        low, high = ([*node.input[1:], "", ""])[:2]
        if any(name and name not in self.constants for name in (low, high)):
            return False
        return not (low and self.constants[low] > 0) and not (high and self.constants[high] < 0)

    def zeros(self, pad: onnx.NodeProto, dimensions: int) -> list[int]:
        """How many zeros a Pad puts at the start of each of its last ``dimensions``, then at the ends.

        Nothing if it does anything else. The dimensions before are samples and channels.
        """
        if self.zero_pad(pad.output[0]) is None:
            return []
        sizes, _, axes = ([*pad.input[1:], "", ""])[:3]
        rank = dimensions + 2
        places = self.constants[axes] % rank if axes else np.arange(rank)
        found = np.zeros((2, rank), np.int64)
        found[:, places] = self.constants[sizes].reshape(2, -1)
        if found.min() < 0 or found[:, :2].any():
            return []
        return [int(one) for one in found[:, 2:].ravel()]


def _pads(node: onnx.NodeProto) -> list[int]:
    """A convolution's own: at the start of each dimension, then at the ends."""
    given = {one.name: list(one.ints) for one in node.attribute}
    return given.get("pads") or [0] * (2 * len(given["kernel_shape"]))
