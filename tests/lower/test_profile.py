"""Profiles of real runtimes: the kernels of one run by the names of the master's layers, and their sum is the run."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from lowered_nets import compiled, forms_of, target_of
from onnx import helper, numpy_helper
from strict_nets import samples

from edgekd.backends import get_backend
from edgekd.lower.graph import Graph

CPU = ["onnxruntime", "openvino"]


@pytest.mark.parametrize("form", ["int8", "float"])
@pytest.mark.parametrize("backend", CPU)
def test_every_weighted_layer_is_one_kernel_by_name(backend: str, form: str) -> None:
    for net in ("resnet-xs", "mobilenet-xs"):
        # Several samples: kernels of less than a microsecond are none to the counters.
        feeds = {"input": samples(net, 8).numpy()}
        times = get_backend(backend).profile(compiled(net, backend, form), target_of(backend), feeds)
        graph = Graph(onnx.load(compiled(net, backend, form).onnx))
        weighted = [node for node in graph.model.graph.node if node.op_type in ("Conv", "Gemm")]
        for node in weighted:
            # A fused kernel may go by its activation's name.
            names = {node.output[0], *(user.output[0] for user in graph.users(node.output[0]))}
            kernels = [one for one in times if names & set(one.values) and one.integer == (form == "int8")]
            assert kernels or node.output[0] == "logits", node.output[0]
        assert all(one.microseconds >= 0 for one in times)
        known = sum(one.microseconds for one in times if one.values)
        assert known > 0.5 * sum(one.microseconds for one in times)


@pytest.mark.parametrize("backend", CPU)
def test_kernels_sum_to_a_run(backend: str, tmp_path: Path) -> None:
    """Of convolutions that take milliseconds, within a factor: the machine may be busy."""
    random = np.random.default_rng(0)
    weights = [numpy_helper.from_array(random.normal(size=(64, 64, 3, 3)).astype(np.float32), f"w{i}") for i in (0, 1)]
    nodes = [
        helper.make_node("Conv", [("input", "middle")[i], f"w{i}"], [("middle", "logits")[i]], name=f"conv{i}")
        for i in (0, 1)
    ]
    ends = [helper.make_tensor_value_info(name, 1, [1, 64, n, n]) for name, n in (("input", 96), ("logits", 92))]
    made = helper.make_graph(nodes, "two", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "two.onnx")
    target, form = target_of(backend), forms_of(backend)["float"]
    model = get_backend(backend).compile(tmp_path / "two.onnx", target, tmp_path, form=form)
    feeds = {"input": random.normal(size=(1, 64, 96, 96)).astype(np.float32)}
    session = get_backend(backend).load(model, target)
    spent = []
    for _ in range(12):
        start = time.perf_counter()
        session.run(feeds)
        spent.append(time.perf_counter() - start)
    times = get_backend(backend).profile(model, target, feeds)
    assert {"middle", "logits"} <= {value for one in times for value in one.values}
    assert 0.2 < sum(one.microseconds for one in times) * 1e-6 / statistics.median(spent) < 5


def test_tensorrt_tells_nothing_without_a_gpu() -> None:
    model = compiled("resnet-xs", "onnxruntime", "int8")
    assert get_backend("tensorrt").profile(model, target_of("tensorrt"), {}) == []
