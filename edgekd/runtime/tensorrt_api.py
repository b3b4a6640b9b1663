"""Loading TensorRT: ``tensorrt`` (10.3 of JetPack 6 to 11) or ``tensorrt_rtx``, which share one API.

TensorRT-RTX needs no GPU to parse and build; its libraries come with the wheel
``onnxruntime-ep-nv-tensorrt-rtx-cu13``, its Python API with ``tensorrt-rtx-cu13-bindings``. CUDA is
called through ctypes: nothing to install on a Jetson.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from .sessions import RuntimeMissing, SessionError

Flavor = Literal["tensorrt", "tensorrt-rtx"]
INSTALL: dict[str, str] = {
    "tensorrt": 'pip install "edgekd[tensorrt]"  (on a Jetson: sudo apt install python3-libnvinfer)',
    "tensorrt-rtx": 'pip install "edgekd[tensorrt-rtx]"',
}
# Engines of the two libraries are different things: the suffix says whose it is.
SUFFIX: dict[str, str] = {"tensorrt": ".engine", "tensorrt-rtx": ".rtx"}
# In the order that they depend on each other.
_RTX_LIBRARIES = ("libcudart.so*", "libtensorrt_rtx.so*", "libtensorrt_onnxparser_rtx.so*")


@lru_cache(maxsize=2)
def load_tensorrt(flavor: Flavor) -> Any:
    """The Python module of one flavor.

    Raises:
        RuntimeMissing: it, or a library that it needs, is not installed.
    """
    try:
        if flavor == "tensorrt":
            return importlib.import_module("tensorrt")
        return _load_rtx()
    except (ImportError, OSError, RuntimeError) as error:
        raise RuntimeMissing(f"{flavor} is not installed ({error})", INSTALL[flavor]) from error


def version(trt: Any) -> tuple[int, ...]:
    """The version numbers of a loaded TensorRT module, for example (10, 3, 0)."""
    return tuple(int(part) for part in trt.__version__.split(".") if part.isdigit())


def is_rtx(trt: Any) -> bool:
    """Whether a loaded module is TensorRT-RTX."""
    return "rtx" in trt.__name__


def strongly_typed_only(trt: Any) -> bool:
    """Whether the file's types are law: RTX and TensorRT 11 have no INT8 and FP16 flags any more."""
    return is_rtx(trt) or not hasattr(trt.BuilderFlag, "FP16")


@lru_cache(maxsize=2)
def make_logger(flavor: Flavor) -> Any:
    """A logger that keeps the last errors and warnings in ``.lines`` instead of printing them."""
    trt = load_tensorrt(flavor)

    class Collector(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[tuple[str, str]] = []
            self._lock = threading.Lock()

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.WARNING:
                with self._lock:
                    self.lines = [*self.lines[-199:], (severity.name, message)]

        def errors(self) -> str:
            return "; ".join(text for level, text in self.lines if level != "WARNING")

    return Collector()


def tensorrt_infos() -> list[tuple[str, bool, str, str, str]]:
    """Rows of `sessions.list_runtimes`: (name, ok, version, reason, install) of both flavors.

    ``reason`` of one that is here tells what it cannot do without a GPU.
    """
    idle = {"tensorrt": "no NVIDIA GPU, which it builds and runs engines on"} | {
        "tensorrt-rtx": "no NVIDIA GPU: engines can be built and checked, but not run"
    }
    rows = []
    for flavor in ("tensorrt", "tensorrt-rtx"):
        try:
            trt = load_tensorrt(flavor)  # type: ignore[arg-type]
            rows.append((flavor, True, str(trt.__version__), "" if has_gpu() else idle[flavor], INSTALL[flavor]))
        except RuntimeMissing as error:
            rows.append((flavor, False, "", error.what, INSTALL[flavor]))
    return rows


def has_gpu() -> bool:
    """Whether CUDA's runtime loads and sees at least one device."""
    try:
        return Cuda().device_count() > 0
    except SessionError:
        return False


def _load_rtx() -> Any:
    if importlib.util.find_spec("tensorrt_rtx") is not None:
        return importlib.import_module("tensorrt_rtx")
    libraries = importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    if libraries is None or libraries.origin is None:
        raise ImportError("no package brings libtensorrt_rtx.so")
    folder = Path(libraries.origin).parent
    for pattern in _RTX_LIBRARIES:
        for library in sorted(folder.glob(pattern)):
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    return importlib.import_module("tensorrt_rtx_bindings")


class Cuda:
    """The dozen calls of CUDA's runtime that a session needs.

    Raises:
        RuntimeMissing: libcudart is not found.
        SessionError: a call fails; the message is CUDA's own.
    """

    def __init__(self) -> None:
        self._library = _cudart()

    def call(self, name: str, *args: Any) -> None:
        """Call the C function ``name`` and check its status."""
        status = getattr(self._library, name)(*args)
        if status:
            self._library.cudaGetErrorString.restype = ctypes.c_char_p
            text = self._library.cudaGetErrorString(status)
            raise SessionError(f"{name}: {text.decode() if text else status}")

    def device_count(self) -> int:
        """How many GPUs there are; 0 without a driver."""
        count = ctypes.c_int(0)
        try:
            self.call("cudaGetDeviceCount", ctypes.byref(count))
        except SessionError:
            return 0
        return count.value

    def stream(self) -> int:
        """A new stream's handle."""
        handle = ctypes.c_void_p()
        self.call("cudaStreamCreate", ctypes.byref(handle))
        return handle.value or 0

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        self.call("cudaStreamDestroy", ctypes.c_void_p(stream))

    def malloc(self, size: int) -> int:
        """The address of ``size`` bytes (at least one) on the device."""
        pointer = ctypes.c_void_p()
        self.call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        return pointer.value or 0

    def free(self, address: int) -> None:
        """Give device memory back."""
        self.call("cudaFree", ctypes.c_void_p(address))

    def copy(self, target: int, source: int, size: int, *, to_device: bool, stream: int) -> None:
        """Queue a copy of ``size`` bytes between host and device on a stream."""
        kind = 1 if to_device else 2
        args = (ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(size), kind)
        self.call("cudaMemcpyAsync", *args, ctypes.c_void_p(stream))

    def synchronize(self, stream: int) -> None:
        """Wait for everything queued on a stream."""
        self.call("cudaStreamSynchronize", ctypes.c_void_p(stream))


@lru_cache(maxsize=1)
def _cudart() -> Any:
    names = ["libcudart.so", "libcudart.so.13", "libcudart.so.12"]
    for package in ("onnxruntime_ep_nv_tensorrt_rtx", "nvidia"):
        spec = importlib.util.find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            names += [str(path) for path in sorted(Path(folder).glob("**/libcudart.so.*"))]
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeMissing("CUDA's runtime library (libcudart) is not found", "pip install nvidia-cuda-runtime")
