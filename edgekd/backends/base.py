"""The Backend interface, how backends are found, and what all of them share."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgekd.errors import BadModel, BadTarget, Missing, ProofFailed
from edgekd.forms import FORM_KEY, CompiledModel, FloatType, LayerInfo, LayerTime, QuantForm
from edgekd.runtime.sessions import Precision, RuntimeMissing, Session, SessionError

if TYPE_CHECKING:
    import numpy as np

    from edgekd.target import Target

GROUP = "edgekd.backends"
_PRECISION: dict[str, Precision] = {"fp32": "f32", "bf16": "bf16"}


@dataclass(frozen=True)
class Availability:
    """Whether a backend's runtime is usable here: its ``version``, or the ``reason`` and the ``install`` line."""

    ok: bool
    version: str
    reason: str = ""
    install: str = ""


class Backend(Protocol):
    """One inference runtime. Importing and making a backend must not import the runtime."""

    name: str

    def probe(self, target: Target | None = None) -> Availability:
        """Whether the runtime is installed here: any that the backend knows, or the one of ``target``; never raises."""
        ...

    def candidates(self, target: Target) -> list[QuantForm]:
        """Forms worth trying in the target's precision: the first is the rules' own choice, the last all fp32.

        Raises:
            BadTarget: the backend has no form in this precision.
        """
        ...

    def compile(self, onnx: Path, target: Target, out: Path, *, form: QuantForm | None = None) -> CompiledModel:
        """Make of a lowered file what `load` takes, in the existing folder ``out``, atomically.

        ``form`` is the form that the file was lowered to. The meta is JSON-ready and the same for the same inputs.

        Raises:
            Missing: the runtime is needed here and not installed.
            ProofFailed: the runtime refuses the lowered file.
        """
        ...

    def load(self, compiled: CompiledModel, target: Target) -> Session:
        """Open a session with the target's threads and the form's precision. Raises Missing, BadModel."""
        ...

    def coverage(self, compiled: CompiledModel, target: Target) -> list[LayerInfo]:
        """The compute layers (convolution, matrix product) as the runtime really runs them; empty if unknown."""
        ...

    def other_layers(self, compiled: CompiledModel, target: Target) -> list[LayerInfo]:
        """Everything else that the runtime executes: adds, pools, quantize steps, reorders; empty if unknown."""
        ...

    def profile(self, compiled: CompiledModel, target: Target, feeds: dict[str, np.ndarray]) -> list[LayerTime]:
        """Where the time of one run goes, kernel by kernel, from the runtime's own profiler; empty if unknown.

        For comparing layers with each other: the profiler itself costs time, so the sum is no latency.
        """
        ...


def get_backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        Missing: no such backend is installed, or its package does not import.
    """
    found = metadata.entry_points(group=GROUP)
    for entry in found:
        if entry.name == name:
            try:
                backend: Backend = entry.load()()
            except ImportError as error:
                raise Missing(f"backend {name} does not import: {error}", where=entry.value) from error
            return backend
    known = ", ".join(sorted(entry.name for entry in found)) or "none"
    raise Missing(
        f"there is no backend {name!r}",
        remedy=f"installed: {known}; backends are found through the entry-point group {GROUP}",
    )


def list_backends() -> list[Backend]:
    """Every installed backend, by name."""
    return [get_backend(name) for name in sorted({entry.name for entry in metadata.entry_points(group=GROUP)})]


@contextmanager
def runtime_errors(where: str = "", *, proving: bool = False) -> Iterator[None]:
    """Turn the errors of edgekd.runtime, which knows no others, into edgekd's.

    ``proving``: a refused file is then a failed proof (edgekd wrote that file) and not a bad model.
    """
    try:
        yield
    except RuntimeMissing as error:
        remedy = f"install it with: {error.install}" if error.install else ""
        raise Missing(error.what, where=where, remedy=remedy) from error
    except SessionError as error:
        if not proving:
            raise BadModel(str(error), where=where) from error
        raise ProofFailed(
            str(error),
            where=where,
            remedy="if it names an operator of your network, replace it or take another target; else report this",
        ) from error


def integer_forms(first: QuantForm, *, vnni: bool) -> list[QuantForm]:
    """The integer candidates around a backend's first choice, most integer first.

    Which layers gain from integers depends on the machine: squeeze-and-excite gates and hardswish cost more in
    int8 than they save on some CPUs, and so do products of activations, and first and last layers. Without VNNI
    u8 x s8 products saturate at 16 bits: layers beyond the overflow bound then get the cheaper cure.
    """
    base = replace(first, name="int8", cure="none" if vnni else "cheaper")
    return [
        base,
        replace(base, name="int8-float-gates", float_groups=frozenset({"gates", "hardswish"})),
        replace(base, name="int8-float-attention", float_groups=frozenset({"attention"})),
        replace(base, name="int8-float-ends", float_groups=frozenset({"first", "last"})),
    ]


def offered(target: Target, integer: list[QuantForm], floats: list[QuantForm]) -> list[QuantForm]:
    """The forms of the target's precision: int8 has all, fp32 that alone.

    fp16 has its own, weights in int8 around float arithmetic (the smallest file; fp32 asks for the numbers as they
    were trained), and, to compare with, fp32 as the last.
    """
    if target.precision == "int8":
        return [*integer, *floats]
    found = [form for form in floats if form.float_type == target.precision]
    if not found:
        raise BadTarget(
            f"{target.backend} has no {target.precision} form on this architecture",
            where=f"target {target.name}: precision",
            remedy=f"use one of int8, {', '.join(sorted({form.float_type for form in floats}))}",
        )
    if found[-1] is floats[-1]:
        return found
    # CPUs store float16 and compute float32: there the scales are float32 too.
    held: FloatType = "fp16" if target.backend == "tensorrt" else "fp32"
    return [*found, replace(found[0], name="weights-int8", weights="int8", float_type=held), floats[-1]]


def float_form(like: QuantForm, float_type: Any = "fp32") -> QuantForm:
    """The all-float candidate in a type; named ``float`` for fp32."""
    name = "float" if float_type == "fp32" else f"float-{float_type}"
    return QuantForm(name=name, rules=like.rules, float_groups=frozenset({"all"}), float_type=float_type)


def precision_of(onnx: Path, form: QuantForm | None, default: Precision, *, half: Precision = "f16") -> Precision:
    """What float layers compute in: the form's type where it is not fp32, else the target's ``default``.

    ``half`` is what the backend computes a float16 file in: on x86 CPUs the file is smaller, the arithmetic float32.
    """
    float_type = form.float_type if form is not None else _noted_float_type(onnx)
    if float_type == "fp16":
        return half
    return _PRECISION[float_type] if float_type != "fp32" else default


def place(onnx: Path, out: Path) -> Path:
    """The lowered file inside ``out``: itself when it lies there already, else an atomic copy."""
    target = out / onnx.name
    if target.exists() and target.samefile(onnx):
        return target
    temporary = out / f".{onnx.name}.tmp"
    shutil.copyfile(onnx, temporary)
    temporary.replace(target)
    return target


def machine_of(target: Target) -> str:
    """The target's architecture, "host" replaced by this machine's."""
    return platform.machine() if target.arch == "host" else target.arch


def _noted_float_type(onnx: Path) -> str:
    """The float type that lower/ noted in the file's metadata; fp32 where nothing is noted."""
    try:
        import onnx as onnx_package
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError:
        return "fp32"
    try:
        model = onnx_package.load(str(onnx), load_external_data=False)
    except DecodeError:  # the runtime refuses the file next, with a better message
        return "fp32"
    noted = {entry.key: entry.value for entry in model.metadata_props}.get(FORM_KEY)
    return str(json.loads(noted).get("float_type", "fp32")) if noted else "fp32"
