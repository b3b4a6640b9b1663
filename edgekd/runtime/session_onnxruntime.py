"""A session of ONNX Runtime on the CPU execution provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .sessions import Precision, RuntimeMissing, SessionError, TensorSpec, check_inputs, is_arm

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxRuntimeSession:
    """`Session` of an ONNX file. ``optimize=False`` runs the graph as written, node by node.

    Float layers compute in the types of the file; ``precision="bf16"`` exists on ARM only (fast-math GEMM).
    """

    def __init__(self, path: Path, *, threads: int, optimize: bool = True, precision: Precision = "f32") -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RuntimeMissing(
                f"ONNX Runtime is not installed ({error})", 'pip install "edgekd[onnxruntime]"'
            ) from error
        self._session = _open(path, session_options(threads, optimize=optimize, precision=precision))
        self._threads, self._precision, self._version = threads, precision, onnxruntime.__version__
        self._optimize = optimize
        self.inputs = [_spec(value) for value in self._session.get_inputs()]
        self.outputs = [_spec(value) for value in self._session.get_outputs()]
        self._names = [spec.name for spec in self.outputs]
        self._run = self._session.run

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name; raises SessionError for inputs that do not fit."""
        try:
            return dict(zip(self._names, self._run(self._names, inputs), strict=True))
        except Exception as error:  # the runtime's exceptions have no common base but Exception
            check_inputs(inputs, self.inputs)
            raise SessionError(f"ONNX Runtime failed: {error}") from error

    def describe(self) -> dict[str, Any]:
        """See `Session.describe`."""
        return {
            "runtime": "onnxruntime",
            "version": self._version,
            "inference_precision": self._precision,
            "threads": self._threads,
            "optimize": self._optimize,
        }


def session_options(threads: int, *, optimize: bool = True, precision: Precision = "f32") -> Any:
    """The ``onnxruntime.SessionOptions`` of every edgekd session: what was proven is what is timed.

    Raises:
        SessionError: a precision that ONNX Runtime's CPU kernels do not offer.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    # The remover may change scales; edgekd's lowering writes no two sites in a row that need it.
    options.add_session_config_entry("session.disable_double_qdq_remover", "1")
    if precision == "bf16" and is_arm():
        options.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", "1")
    elif precision != "f32":
        raise SessionError(f"ONNX Runtime has no inference precision {precision} on this CPU; it offers f32")
    return options


def _open(path: Path, options: Any) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise SessionError(f"ONNX Runtime cannot load {path}: {error}") from error


def _spec(value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorSpec(value.name, shape, _DTYPES.get(value.type, value.type))
