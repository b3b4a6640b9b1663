"""ONNX Runtime's CPU execution provider (docs/placement.md)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.backends.base import (
    Availability,
    float_form,
    integer_forms,
    machine_of,
    offered,
    place,
    precision_of,
    runtime_errors,
)
from edgekd.backends.onnxruntime_profile import kernel_times
from edgekd.errors import missing_package
from edgekd.forms import CompiledModel, LayerInfo, LayerTime, QuantForm
from edgekd.runtime.session_onnxruntime import session_options
from edgekd.runtime.sessions import Session, list_runtimes, open_session

if TYPE_CHECKING:
    import numpy as np

    from edgekd.target import Target

X86 = QuantForm(name="int8", rules="onnxruntime", nonnegative="u8/255", signed="u8@128", floors="u8", bias="int32")
# The same numbers 128 lower: only s8 activations reach ARM's SymmQgemm kernels.
ARM = QuantForm(name="int8", rules="onnxruntime", nonnegative="s8-128", signed="s8", floors="s8", bias="int32")

_INTEGER = {
    "QLinearConv",
    "QLinearMatMul",
    "QGemm",
    "ConvInteger",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QLinearConvTranspose",
}
_FLOAT = {"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}


class OnnxRuntimeBackend:
    """`Backend` of ONNX Runtime. What ships is the ONNX file itself: an optimized file is tied to its CPU."""

    name = "onnxruntime"

    def probe(self, target: Target | None = None) -> Availability:
        """See `Backend.probe`."""
        info = next(info for info in list_runtimes(gpu=False) if info.name == self.name)
        return Availability(info.ok, info.version, info.reason, info.install)

    def candidates(self, target: Target) -> list[QuantForm]:
        """See `Backend.candidates`; fp16 halves the file, CPUs compute it in float32."""
        arm = machine_of(target) in {"aarch64", "arm64"}
        like = ARM if arm else X86
        floats = [float_form(like)]
        if target.precision == "fp16":
            floats.insert(0, float_form(like, "fp16"))
        return offered(target, integer_forms(like, vnni=arm or target.has_vnni()), floats)

    def compile(self, onnx: Path, target: Target, out: Path, *, form: QuantForm | None = None) -> CompiledModel:
        """See `Backend.compile`; loads the file once, so that a refused one fails here."""
        path = place(onnx, out)
        precision = precision_of(onnx, form, target.runtime.inference_precision, half="f32")
        with runtime_errors(str(onnx), proving=True):
            session = open_session(path, "onnxruntime", threads=target.runtime.threads, precision=precision)
        described = session.describe()
        meta = {key: described[key] for key in ("runtime", "version", "inference_precision")}
        return CompiledModel(self.name, path, path, meta)

    def load(self, compiled: CompiledModel, target: Target) -> Session:
        """See `Backend.load`."""
        precision = compiled.meta.get("inference_precision", target.runtime.inference_precision)
        with runtime_errors(str(compiled.path)):
            return open_session(compiled.path, "onnxruntime", threads=target.runtime.threads, precision=precision)

    def coverage(self, compiled: CompiledModel, target: Target) -> list[LayerInfo]:
        """See `Backend.coverage`; counted in the graph that ONNX Runtime's optimizer leaves on this CPU."""
        return [_layer(node) for node in _optimized(compiled) if node.op_type in _INTEGER | _FLOAT]

    def other_layers(self, compiled: CompiledModel, target: Target) -> list[LayerInfo]:
        """See `Backend.other_layers`."""
        return [_layer(node) for node in _optimized(compiled) if node.op_type not in _INTEGER | _FLOAT]

    def profile(self, compiled: CompiledModel, target: Target, feeds: dict[str, np.ndarray]) -> list[LayerTime]:
        """See `Backend.profile`."""
        with runtime_errors(str(compiled.path)):
            self.load(compiled, target)  # a missing runtime and a broken file are told as everywhere
            options = session_options(target.runtime.threads)
        return kernel_times(compiled.path, options, feeds, integer_ops=_INTEGER)


def _layer(node: Any) -> LayerInfo:
    op = node.op_type
    integer = op in _INTEGER or op.startswith("QLinear")
    return LayerInfo(node.name or node.output[0], op, integer, "int8" if integer else "")


def _optimized(compiled: CompiledModel) -> list[Any]:
    """The nodes of the optimized graph, weights' and biases' own DequantizeLinear left out."""
    try:
        import onnx
    except ImportError as error:
        raise missing_package("onnx, which reads the optimized graph,", "build") from error
    with runtime_errors(str(compiled.path)), tempfile.TemporaryDirectory() as folder:
        import onnxruntime

        options = session_options(1)
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(str(compiled.path), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
    constants = {tensor.name for tensor in graph.initializer}
    return [node for node in graph.node if node.op_type != "DequantizeLinear" or node.input[0] not in constants]
