"""Profiles of real runtimes: the kernels of one run by the names of the master's layers, and their sum is the run."""

from __future__ import annotations

import statistics
import time

import onnx
import pytest
from lowered_nets import compiled, target_of
from strict_nets import samples

from edgekd.backends import get_backend
from edgekd.lower.graph import Graph

CPU = ["onnxruntime", "openvino"]


@pytest.mark.parametrize("form", ["int8", "float"])
@pytest.mark.parametrize("backend", CPU)
def test_every_weighted_layer_is_one_kernel_by_name(backend: str, form: str) -> None:
    for net in ("resnet-xs", "mobilenet-xs"):
        feeds = {"input": samples(net, 1).numpy()}
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
def test_kernels_sum_to_a_run(backend: str) -> None:
    """Within a factor: the machine may be busy, and a profiler is no stopwatch."""
    model, target = compiled("resnet18", backend, "float"), target_of(backend)
    feeds = {"input": samples("resnet18", 1).numpy()}
    session = get_backend(backend).load(model, target)
    spent = []
    for _ in range(12):
        start = time.perf_counter()
        session.run(feeds)
        spent.append(time.perf_counter() - start)
    times = get_backend(backend).profile(model, target, feeds)
    assert 0.25 < sum(one.microseconds for one in times) * 1e-6 / statistics.median(spent) < 4


def test_tensorrt_tells_nothing_without_a_gpu() -> None:
    model = compiled("resnet-xs", "onnxruntime", "int8")
    assert get_backend("tensorrt").profile(model, target_of("tensorrt"), {}) == []
