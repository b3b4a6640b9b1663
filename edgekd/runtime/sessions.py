"""One way to open and run a model file on every inference runtime.

This folder travels to devices (inside bundles it is named ``edgekd_runtime``): it needs the standard library,
numpy and the one runtime that is asked for, imported when it is asked for, and nothing else of edgekd.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

RuntimeName = Literal["onnxruntime", "openvino", "tensorrt"]
Precision = Literal["f32", "bf16", "f16"]
RUNTIMES: tuple[RuntimeName, ...] = ("onnxruntime", "openvino", "tensorrt")

_MODULES = {
    "onnxruntime": (".session_onnxruntime", "OnnxRuntimeSession"),
    "openvino": (".session_openvino", "OpenVinoSession"),
    "tensorrt": (".session_tensorrt", "TensorRtSession"),
}


class SessionError(RuntimeError):
    """A model cannot be loaded or run: a broken file, wrong inputs, an option the runtime does not have."""


class RuntimeMissing(SessionError):
    """The runtime (or its GPU) is not on this machine; ``install`` is the line that brings it, ``label`` the model."""

    def __init__(self, what: str, install: str = "", *, label: str = "") -> None:
        self.what, self.install, self.label = what, install, label
        super().__init__(f"{what}\n  install it with: {install}" if install else what)


class TensorSpec(NamedTuple):
    """One input or output: its name, its shape (``None`` where dynamic) and its numpy dtype name."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class Session(Protocol):
    """A loaded model. Not safe for use by several threads at once."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name, as arrays of their own; the batch size may differ from call to call.

        Raises:
            SessionError: an input is missing, or has a shape or dtype that the model does not take.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """``runtime``, ``version``, ``inference_precision`` and ``threads``, as measurements name them."""
        ...


class RuntimeInfo(NamedTuple):
    """One runtime as `list_runtimes` found it: ``version`` is empty and ``reason`` filled when not ``ok``."""

    name: str
    ok: bool
    version: str
    reason: str
    install: str


def open_session(
    path: Path,
    runtime: RuntimeName,
    *,
    threads: int,
    optimize: bool = True,
    precision: Precision = "f32",
    cores: Iterable[int] | None = None,
    shared: bool = False,
) -> Session:
    """Load a model file.

    Args:
        path: an ONNX file (onnxruntime, openvino), an OpenVINO IR ``.xml``, a TensorRT engine (``.engine``;
            ``.rtx`` for an engine of TensorRT-RTX).
        runtime: which runtime runs it.
        threads: worker threads of a CPU runtime, at least 1 (no meaning on a GPU).
        optimize: False switches all graph optimizations off: the reference of a proof. onnxruntime only.
        precision: what the float layers compute in. Never left to the runtime's silent default.
        cores: CPU numbers; they become the affinity of the *calling thread*, which the workers inherit.
        shared: the process opens several sessions to run at once: none pins its workers, as OpenVINO does otherwise,
            each session to the same cores.

    Raises:
        RuntimeMissing: the runtime or its device is not here.
        SessionError: the file does not load, or the runtime has no such option.
    """
    if runtime not in _MODULES:
        raise SessionError(f"unknown runtime {runtime!r}: known are {', '.join(RUNTIMES)}")
    if threads < 1:
        raise SessionError(f"threads is {threads}, must be at least 1")
    path = Path(path)
    if not path.is_file():
        raise SessionError(f"no such model file: {path}")
    if cores is not None:
        os.sched_setaffinity(0, set(cores))
    module_name, class_name = _MODULES[runtime]
    session_class = getattr(importlib.import_module(module_name, __package__), class_name)
    more = {"shared": True} if shared and runtime == "openvino" else {}
    session: Session = session_class(path, threads=threads, optimize=optimize, precision=precision, **more)
    return session


def list_runtimes(*, gpu: bool = True) -> list[RuntimeInfo]:
    """Every runtime that edgekd knows, with its version or the reason why it is not usable here.

    ``gpu=False`` leaves out TensorRT's two libraries, which have to be loaded to be asked.
    """
    found = []
    for package in ("onnxruntime", "openvino"):
        install = f'pip install "edgekd[{package}]"'
        try:
            found.append(RuntimeInfo(package, True, _version(package), "", install))
        except metadata.PackageNotFoundError:
            found.append(RuntimeInfo(package, False, "", "not installed", install))
    if not gpu:
        return found
    from .tensorrt_api import tensorrt_infos

    return found + [RuntimeInfo(*row) for row in tensorrt_infos()]


def _version(package: str) -> str:
    """The version of an importable package whose wheel may carry another name (onnxruntime-gpu, ...)."""
    if importlib.util.find_spec(package) is None:
        raise metadata.PackageNotFoundError(package)
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        names = metadata.packages_distributions().get(package, [package])
        return metadata.version(names[0])


def check_inputs(given: dict[str, np.ndarray], specs: list[TensorSpec]) -> None:
    """Explain what is wrong with inputs that a runtime refused; returns when nothing is.

    Raises:
        SessionError: names the input, what it is and what the model takes.
    """
    for name, shape, dtype in specs:
        if name not in given:
            raise SessionError(f"input {name!r} is missing; given: {', '.join(given) or 'nothing'}")
        array = given[name]
        if str(array.dtype) != dtype:
            raise SessionError(f"input {name!r} has dtype {array.dtype}, the model takes {dtype}")
        fits = len(shape) == array.ndim and all(
            want is None or want == got for want, got in zip(shape, array.shape, strict=True)
        )
        if not fits:
            wanted = "x".join("?" if size is None else str(size) for size in shape)
            raise SessionError(f"input {name!r} has shape {array.shape}, the model takes {wanted}")
    unknown = set(given) - {spec.name for spec in specs}
    if unknown:
        raise SessionError(f"the model has no input {', '.join(sorted(unknown))}")


def is_arm() -> bool:
    """Whether this machine is 64-bit ARM."""
    return platform.machine() in {"aarch64", "arm64"}
