"""ONNX Runtime's form for ARM: x86's, 128 lower, which compiles to the same operators and computes the same numbers.

ARM keeps signed codes; an x86 machine does so too where ``session.qdqisint8allowed`` says that its kernels take them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from row_nets import ROWS, samples
from strict_nets import rms
from test_rows import TABLE, master, rows

from edgekd.backends.onnxruntime import ARM, X86
from edgekd.lower import check_lowering, lower
from edgekd.lower.graph import Graph
from edgekd.measure.proof import onnx_run
from edgekd.runtime.session_onnxruntime import session_options


def lowered(name: str, folder: Path) -> dict[str, Path]:
    paths = {}
    for kind, form in (("x86", X86), ("arm", ARM)):
        model, paths[kind] = lower(master(name), form), folder / f"{kind}.onnx"
        check_lowering(master(name), model, form)
        onnx.save(model, paths[kind])
    return paths


def run(path: Path) -> tuple[np.ndarray, Graph]:
    """Answers and optimized graph of a session that keeps signed codes, as ARM's does."""
    options: Any = session_options(1)
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": samples(seed=3).numpy()})
    return found, Graph(onnx.load(options.optimized_model_filepath))


@pytest.mark.parametrize("name", ROWS)
def test_signed_bytes_of_the_same_numbers(name: str, tmp_path: Path) -> None:
    paths = lowered(name, tmp_path)
    graph = Graph(onnx.load(paths["arm"]))
    kinds = {
        graph.array(node.input[2]).dtype.name
        for node in graph.model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    }
    assert kinds <= {"int8", "int32"}
    x86, arm = (onnx_run(path)(samples(seed=3).numpy()) for path in paths.values())
    assert np.array_equal(x86, arm)


@pytest.mark.parametrize("name", rows("onnxruntime"))
def test_compiled(name: str, tmp_path: Path) -> None:
    paths = lowered(name, tmp_path)
    found, graph = run(paths["arm"])
    moved = {node.output[0] for node in graph.model.graph.node if node.op_type in ("Reshape", "Flatten")}
    weights = {
        node.output[0]
        for node in graph.model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in graph.constants
    }
    operators = Counter(node.op_type for node in graph.model.graph.node if node.output[0] not in moved | weights)
    assert operators == TABLE[name].onnxruntime
    assert not any(tensor.data_type == onnx.TensorProto.UINT8 for tensor in graph.constants.values())
    assert rms(found, run(paths["x86"])[0]) < 0.01
