"""A session of OpenVINO on the CPU."""

from __future__ import annotations

from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .sessions import Precision, RuntimeMissing, SessionError, TensorSpec, check_inputs

# Compiled variants that one session keeps; an accuracy pass needs two (the batch and the last, smaller one).
_KEPT = 4


@cache
def openvino_core() -> Any:
    """The ``openvino.Core`` of this process, kept to its end; raises ImportError without OpenVINO.

    Each core's CPU plugin gives the thread an alternate signal stack of its own. When two cores end in the order in
    which they began, the thread is left with the first one's, which is unmapped by then, and the next signal that
    has a handler (SIGCHLD under torch's loaders, Ctrl-C) is a segmentation fault (seen with OpenVINO 2026.4).
    """
    from openvino import Core

    return Core()


class _Variant(NamedTuple):
    """A compiled, static model: its request, and the request's memory as numpy views."""

    request: Any
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]


class OpenVinoSession:
    """`Session` of an ONNX file or an IR. OpenVINO has no switch to turn its graph optimizations off.

    Dynamic shapes run int8 graphs on slower, unfused nodes, so the model is compiled anew, static, for each
    set of input shapes that it meets (the last four are kept).
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        optimize: bool = True,
        precision: Precision = "f32",
        shared: bool = False,
    ) -> None:
        if not optimize:
            raise SessionError("OpenVINO cannot switch graph optimizations off; use onnxruntime as the reference")
        try:
            import openvino
        except ImportError as error:
            raise RuntimeMissing(f"OpenVINO is not installed ({error})", 'pip install "edgekd[openvino]"') from error
        self._threads, self._precision, self._shared = threads, precision, shared
        self._version = openvino.__version__
        try:
            self._model = openvino_core().read_model(path)
        except Exception as error:
            raise SessionError(f"OpenVINO cannot load {path}: {error}") from error
        self.inputs = [_spec(port, port.node.friendly_name) for port in self._model.inputs]
        self.outputs = [_spec(port, _output_name(port)) for port in self._model.outputs]
        self._variants: OrderedDict[tuple, _Variant] = OrderedDict()
        self._key: tuple = ()
        self._variant: _Variant

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name; compiles first when shapes are new. Raises SessionError for wrong inputs."""
        try:
            arrays = [inputs[spec.name] for spec in self.inputs]
            key = tuple((array.shape, array.dtype) for array in arrays)
        except (KeyError, AttributeError):
            check_inputs(inputs, self.inputs)
            raise
        if key != self._key or len(inputs) != len(arrays):
            check_inputs(inputs, self.inputs)
            self._select(key)
        variant = self._variant
        for memory, array in zip(variant.inputs, arrays, strict=True):
            np.copyto(memory, array)
        try:
            variant.request.infer(None, share_inputs=True, share_outputs=True)
        except Exception as error:
            raise SessionError(f"OpenVINO failed: {error}") from error
        # Copied: the request's memory is overwritten by the next run.
        return {spec.name: memory.copy() for spec, memory in zip(self.outputs, variant.outputs, strict=True)}

    def describe(self) -> dict[str, Any]:
        """See `Session.describe`."""
        return {
            "runtime": "openvino",
            "version": self._version,
            "inference_precision": self._precision,
            "threads": self._threads,
        }

    @property
    def compiled(self) -> Any:
        """The ``openvino.CompiledModel`` in use; a dynamic model is compiled for its shapes at batch 1."""
        if not self._key:
            shapes = [tuple(size or 1 for size in spec.shape) for spec in self.inputs]
            dtypes = [np.dtype(spec.dtype) for spec in self.inputs]
            self._select(tuple(zip(shapes, dtypes, strict=True)))
        return self._variant.request.get_compiled_model()

    def _select(self, key: tuple) -> None:
        """Make the variant for these (shape, dtype) pairs of the inputs the current one."""
        if key not in self._variants:
            self._variants[key] = self._compile([shape for shape, _ in key])
            if len(self._variants) > _KEPT:
                self._variants.popitem(last=False)
        self._variants.move_to_end(key)
        self._key, self._variant = key, self._variants[key]

    def _compile(self, shapes: list[tuple[int, ...]]) -> _Variant:
        model = self._model
        options = compile_options(self._threads, precision=self._precision)
        if self._shared:
            options["ENABLE_CPU_PINNING"] = "NO"
        try:
            if any(port.partial_shape.is_dynamic for port in model.inputs):
                model = model.clone()
                model.reshape({index: list(shape) for index, shape in enumerate(shapes)})
            request = openvino_core().compile_model(model, "CPU", options).create_infer_request()
        except Exception as error:
            raise SessionError(f"OpenVINO cannot compile the model: {error}") from error
        # With static shapes the request's memory stays where it is, so these views stay valid.
        return _Variant(
            request,
            [request.get_input_tensor(index).data for index in range(len(self.inputs))],
            [request.get_output_tensor(index).data for index in range(len(self.outputs))],
        )


def compile_options(threads: int, *, precision: Precision = "f32") -> dict[str, str]:
    """The CPU plugin's options of every edgekd session: one stream, latency first, explicit precision."""
    return {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
    }


def _spec(port: Any, name: str) -> TensorSpec:
    shape = tuple(int(d.get_length()) if d.is_static else None for d in port.partial_shape)
    return TensorSpec(name, shape, np.dtype(port.element_type.to_dtype()).name)


def _output_name(port: Any) -> str:
    # A tensor may carry several names (an Identity merges them); the result node keeps the graph output's.
    name = port.node.friendly_name
    return name.split("/sink_port_")[0] if "/sink_port_" in name else port.any_name
