"""Small real ONNX networks in the forms that the backends want."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SCALE = {"input": 0.03, "r1": 0.02, "c2": 0.03, "r2": 0.02, "p": 0.02}
NON_NEGATIVE = {"r1", "r2", "p"}


class Builder:
    """conv-relu, conv, residual add, relu, pooling, linear: with Q/DQ in a backend's form, or float."""

    def __init__(self, form: str, *, half: bool = False, channels: int = 16, seed: int = 0) -> None:
        self.form, self.channels = form, channels
        self.random = np.random.default_rng(seed)
        self.type = np.float16 if half else np.float32
        self.half = half
        self.nodes: list = []
        self.values: list = []

    def constant(self, name: str, value) -> str:
        self.values.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def site(self, tensor: str, *, zero_point: int | None = None) -> str:
        if self.form == "float":
            return tensor
        code: type = np.int8
        zero, scale = 0, SCALE[tensor]
        if self.form == "u8":
            code = np.uint8
            zero, scale = (0, scale * 127 / 255) if tensor in NON_NEGATIVE else (128, scale)
        if self.form == "s8-128" and tensor in NON_NEGATIVE:
            zero, scale = -128, scale * 127 / 255
        if self.form == "openvino" and tensor in NON_NEGATIVE:
            code, zero, scale = np.uint8, 0, scale * 127 / 255
        if zero_point is not None:
            zero = zero_point
        names = [
            tensor,
            self.constant(f"{tensor}_scale", self.type(scale)),
            self.constant(f"{tensor}_zero", code(zero)),
        ]
        self.nodes.append(helper.make_node("QuantizeLinear", names, [f"{tensor}_q"], name=f"{tensor}_Q"))
        names[0] = f"{tensor}_q"
        self.nodes.append(helper.make_node("DequantizeLinear", names, [f"{tensor}_dq"], name=f"{tensor}_DQ"))
        return f"{tensor}_dq"

    def weight(self, name: str, *shape: int) -> str:
        value = self.random.normal(size=shape).astype(self.type) / np.sqrt(np.prod(shape[1:])).astype(self.type)
        if self.form == "float":
            return self.constant(name, value)
        scale = (np.abs(value).reshape(len(value), -1).max(1) / 127).astype(self.type)
        zero = np.zeros(len(value), np.int8)
        names = [self.constant(name, value), self.constant(f"{name}_s", scale), self.constant(f"{name}_z", zero)]
        self.nodes.append(helper.make_node("QuantizeLinear", names, [f"{name}_q"], axis=0))
        names[0] = f"{name}_q"
        self.nodes.append(helper.make_node("DequantizeLinear", names, [f"{name}_dq"], axis=0))
        return f"{name}_dq"

    def add(self, op: str, inputs: list[str], output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def save(self, path: Path, *, zero_point: int | None = None, metadata: dict[str, str] | None = None) -> Path:
        """``zero_point`` overrides the one of the first activation, to make a file that TensorRT refuses."""
        n = self.channels
        x = self.add("Cast", ["input"], "input16", to=TensorProto.FLOAT16) if self.half else "input"
        if self.half and self.form != "float":
            SCALE[x] = SCALE["input"]
        x = self.site(x)
        c1 = self.add("Conv", [x, self.weight("w1", n, 3, 3, 3), self.bias("b1", n)], "c1", pads=[1] * 4)
        r1 = self.site(self.add("Relu", [c1], "r1"), zero_point=zero_point)
        c2 = self.add("Conv", [r1, self.weight("w2", n, n, 3, 3), self.bias("b2", n)], "c2", pads=[1] * 4)
        a = self.add("Add", [self.site(c2), r1], "a")
        r2 = self.site(self.add("Relu", [a], "r2"))
        p = self.site(self.add("GlobalAveragePool", [r2], "p"))
        shape = self.constant("shape", np.array([0, n]))
        flat = self.add("Reshape", [p, shape], "flat")
        out = "logits16" if self.half else "logits"
        self.add("Gemm", [flat, self.weight("w3", 10, n), self.bias("b3", 10)], out, transB=1)
        if self.half:
            self.add("Cast", [out], "logits", to=TensorProto.FLOAT)
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 12, 12])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
            self.values,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        if metadata:
            helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        return path

    def bias(self, name: str, size: int) -> str:
        return self.constant(name, self.random.normal(size=size).astype(self.type) / 10)


def batch(size: int, seed: int = 0) -> np.ndarray:
    """Normal noise, (size, 3, 12, 12) float32."""
    return np.random.default_rng(seed).normal(size=(size, 3, 12, 12)).astype(np.float32)
