"""A chain of products and clips as ONNX, and its quantized forms in numpy with exact integer arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, LAYERS, CLASSES = 32, 4, 6
LAST = LAYERS - 1
_random = np.random.default_rng(3)


def _weights(width: int) -> np.ndarray:
    """Neighbours of one sign and nearly the largest size: where both inputs are large, 16 bits do not hold a pair."""
    sign = np.repeat(_random.choice([-1, 1], (WIDTH // 2, width)), 2, axis=0)
    return (sign * _random.uniform(0.25, 0.3, (WIDTH, width))).astype(np.float32)


WEIGHTS = [_weights(WIDTH if layer < LAST else CLASSES) for layer in range(LAYERS)]
# As with ReLU6, many activations lie at the end of their range, and so do the samples.
TOP = np.float32(0.5)
SAMPLES = np.clip(np.abs(_random.normal(size=(96, WIDTH))), 0, TOP).astype(np.float32)
Product = Callable[[np.ndarray, np.ndarray], np.ndarray]


def network() -> onnx.ModelProto:
    """The float network: input -> m0 -> r0 -> m1 -> ... -> logits."""
    nodes, data = [], "input"
    for layer in range(LAYERS):
        product = f"m{layer}" if layer < LAST else "logits"
        nodes.append(helper.make_node("MatMul", [data, f"body.{layer}.weight"], [product]))
        if layer < LAST:
            nodes.append(helper.make_node("Clip", [product, "lowest", "top"], [f"r{layer}"]))
            data = f"r{layer}"
    bounds = [numpy_helper.from_array(np.float32(value), name) for name, value in (("lowest", 0), ("top", TOP))]
    tensors = [numpy_helper.from_array(weight, f"body.{layer}.weight") for layer, weight in enumerate(WEIGHTS)]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])]
        for name, width in (("input", WIDTH), ("logits", CLASSES))
    ]
    graph = helper.make_graph(nodes, "chain", *ends, [*tensors, *bounds])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def exact(codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """u8 x s8 summed in 32 bits, as with VNNI."""
    return codes.astype(np.int32) @ weights.astype(np.int32)


def saturating(codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """u8 x s8 as ``vpmaddubsw`` adds them: pairs of products in 16 bits, held at their ends."""
    products = codes[:, :, None].astype(np.int32) * weights[None].astype(np.int32)
    pairs = products[:, 0::2] + products[:, 1::2]
    return np.clip(pairs, -32768, 32767).sum(1)


def inside(
    steps: int, *, products: dict[int, Product] | None = None, scaled: dict[int, float] | None = None
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The chain with activations in ``steps`` codes; some layers' ``products`` or weight scales are other ones."""

    def run(x: np.ndarray) -> dict[str, np.ndarray]:
        found, data = {}, x
        for layer, weight in enumerate(WEIGHTS):
            data_scale, weight_scale = TOP / steps, np.abs(weight).max(0) / 127
            codes = np.clip(np.rint(data / data_scale), 0, steps)
            product = (products or {}).get(layer, exact)
            sums = product(codes, np.rint(weight / weight_scale)) * data_scale * weight_scale
            sums = (sums * (scaled or {}).get(layer, 1.0)).astype(np.float32)
            found[f"m{layer}" if layer < LAST else "logits"] = sums
            if layer < LAST:
                data = found[f"r{layer}"] = np.clip(sums, 0, TOP)
        return found

    return run
