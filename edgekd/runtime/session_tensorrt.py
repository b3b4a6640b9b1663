"""A session of a TensorRT (or TensorRT-RTX) engine on the first GPU."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from .sessions import Precision, RuntimeMissing, SessionError, TensorSpec, check_inputs
from .tensorrt_api import SUFFIX, Cuda, Flavor, load_tensorrt, make_logger


class TensorRtSession:
    """`Session` of a serialized engine; ``.rtx`` files belong to TensorRT-RTX, all others to TensorRT.

    What the layers compute in was decided when the engine was built: ``precision`` is only reported.
    A run copies inputs to the GPU, executes and copies outputs back; its time includes all three.
    """

    def __init__(self, path: Path, *, threads: int, optimize: bool = True, precision: Precision = "f32") -> None:
        if path.suffix == ".onnx":
            raise SessionError(f"{path} is not an engine; build one with tensorrt_build.build_engine first")
        if not optimize:
            raise SessionError("a TensorRT engine is always optimized; use onnxruntime as the reference")
        flavor: Flavor = "tensorrt-rtx" if path.suffix == SUFFIX["tensorrt-rtx"] else "tensorrt"
        self._trt = trt = load_tensorrt(flavor)
        self._flavor, self._precision = flavor, precision
        self._cuda = Cuda()
        if not self._cuda.device_count():
            raise RuntimeMissing(f"{flavor} {trt.__version__} is installed, but this machine has no NVIDIA GPU")
        logger = make_logger(flavor)
        self._runtime = trt.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise SessionError(
                f"{flavor} {trt.__version__} cannot load {path}: {logger.errors()} "
                "(an engine belongs to the GPU, TensorRT and driver it was built for: build it again here)"
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise SessionError(f"no execution context for {path}: {logger.errors()}")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        is_input = {name: self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self.inputs = [self._spec(name) for name in names if is_input[name]]
        self.outputs = [self._spec(name) for name in names if not is_input[name]]
        self._max_batch: int | None = None
        if self.inputs and self.inputs[0].shape[:1] == (None,):
            self._max_batch = int(self._engine.get_tensor_profile_shape(self.inputs[0].name, 0)[2][0])
        self._stream = self._cuda.stream()
        self._buffers: dict[str, tuple[int, int]] = {}
        self._key: tuple = ()
        self._results: dict[str, np.ndarray] = {}

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name; raises SessionError for inputs that do not fit or a failed execution.

        A batch larger than the engine's profile runs in parts.
        """
        try:
            arrays = {spec.name: np.ascontiguousarray(inputs[spec.name]) for spec in self.inputs}
        except KeyError:
            check_inputs(inputs, self.inputs)
            raise
        key = tuple((array.shape, array.dtype) for array in arrays.values())
        if key == self._key:
            return self._execute(arrays)
        check_inputs(inputs, self.inputs)
        batch, most = next(iter(arrays.values())).shape[0], self._max_batch
        if most is not None and batch > most:
            slices = [slice(start, start + most) for start in range(0, batch, most)]
            parts = [self.run({name: array[part] for name, array in arrays.items()}) for part in slices]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        self._key = ()
        self._prepare(arrays)
        self._key = key
        return self._execute(arrays)

    def _execute(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name, array in arrays.items():
            self._cuda.copy(
                self._buffers[name][0], array.ctypes.data, array.nbytes, to_device=True, stream=self._stream
            )
        if not self._context.execute_async_v3(self._stream):
            raise SessionError(f"{self._flavor} failed to execute: {make_logger(self._flavor).errors()}")
        results = {name: np.empty_like(array) for name, array in self._results.items()}
        for name, array in results.items():
            self._cuda.copy(
                array.ctypes.data, self._buffers[name][0], array.nbytes, to_device=False, stream=self._stream
            )
        self._cuda.synchronize(self._stream)
        return results

    def describe(self) -> dict[str, Any]:
        """See `Session.describe`; ``threads`` is None: it has no meaning on a GPU."""
        return {
            "runtime": self._flavor,
            "version": str(self._trt.__version__),
            "inference_precision": self._precision,
            "threads": None,
        }

    def _spec(self, name: str) -> TensorSpec:
        shape = tuple(size if size >= 0 else None for size in self._engine.get_tensor_shape(name))
        return TensorSpec(name, shape, np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name))).name)

    def _prepare(self, arrays: dict[str, np.ndarray]) -> None:
        """Set the shapes of a new batch, and give every tensor device memory that is large enough."""
        for name, array in arrays.items():
            if not self._context.set_input_shape(name, array.shape):
                low, _, high = self._engine.get_tensor_profile_shape(name, 0)
                raise SessionError(
                    f"input {name!r} has shape {array.shape}; the engine takes {tuple(low)} to {tuple(high)}"
                )
            self._bind(name, array.nbytes)
        self._results = {}
        for spec in self.outputs:
            shape = tuple(self._context.get_tensor_shape(spec.name))
            self._results[spec.name] = np.empty(shape, dtype=spec.dtype)
            self._bind(spec.name, self._results[spec.name].nbytes)

    def _bind(self, name: str, size: int) -> None:
        address, held = self._buffers.get(name, (0, -1))
        if held < size:
            if address:
                self._cuda.free(address)
            address = self._cuda.malloc(size)
            self._buffers[name] = (address, size)
        if not self._context.set_tensor_address(name, address):
            raise SessionError(f"{self._flavor} does not take memory for tensor {name!r}")

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at interpreter exit modules may be gone already
            while self._buffers:
                self._cuda.free(self._buffers.popitem()[1][0])
            self._cuda.destroy_stream(self._stream)
