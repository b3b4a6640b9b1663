"""OpenVINO's CPU plugin (docs/placement.md)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

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
from edgekd.backends.openvino_layers import compute_layers, layers_of
from edgekd.backends.openvino_profile import kernel_times
from edgekd.forms import CompiledModel, LayerInfo, LayerTime, QuantForm
from edgekd.runtime.session_openvino import compile_options, openvino_core
from edgekd.runtime.sessions import Precision, Session, list_runtimes, open_session

if TYPE_CHECKING:
    import numpy as np

    from edgekd.runtime.session_openvino import OpenVinoSession
    from edgekd.target import Target

# On AMX the plugin takes a convolution's zero point with u8 alone: with s8 it subtracts first and computes in float.
# Elsewhere (AVX-512 with VNNI) it computes both in integers.
# There a convolution behind a concatenation in s8 is wrong (2026.4: logits off by a tenth), and in u8 right.
X86 = QuantForm(name="int8", rules="openvino", nonnegative="u8/255", signed="s8", joined="u8@128", floors="u8")
# On ARM a zero point sends a layer to fp16, so non-negative tensors keep zero point 0 there.
ARM = QuantForm(name="int8", rules="openvino", nonnegative="s8/127", signed="s8")


class OpenVinoBackend:
    """`Backend` of OpenVINO on the CPU.

    What ships is the ONNX file: an IR holds the same Q/DQ graph (the low precision transformations run when a
    device compiles it) in two files instead of the one whose hash is proven.
    """

    name = "openvino"

    def probe(self, target: Target | None = None) -> Availability:
        """See `Backend.probe`."""
        info = next(info for info in list_runtimes(gpu=False) if info.name == self.name)
        return Availability(info.ok, info.version, info.reason, info.install)

    def candidates(self, target: Target) -> list[QuantForm]:
        """See `Backend.candidates`; bf16 (x86), around integers too, where the CPU has it; fp16 for ARM to beat."""
        if machine_of(target) in {"aarch64", "arm64"}:
            return offered(target, integer_forms(ARM, vnni=True), [float_form(ARM, "fp16"), float_form(ARM)])
        floats = [float_form(X86)]
        if target.precision == "fp16":
            floats.insert(0, float_form(X86, "fp16"))
        elif target.is_here() and "BF16" in cpu_capabilities():
            floats.insert(0, float_form(X86, "bf16"))
        integers = integer_forms(X86, vnni=target.has_vnni())
        if floats[0].float_type == "bf16":
            integers.append(replace(integers[0], name="int8-bf16", float_type="bf16"))
        return offered(target, integers, floats)

    def compile(self, onnx: Path, target: Target, out: Path, *, form: QuantForm | None = None) -> CompiledModel:
        """See `Backend.compile`; compiles once at batch 1, so that a refused file fails here."""
        path = place(onnx, out)
        half: Precision = "f16" if machine_of(target) in {"aarch64", "arm64"} else "f32"
        precision = precision_of(onnx, form, target.runtime.inference_precision, half=half)
        with runtime_errors(str(onnx), proving=True):
            session = open_session(path, "openvino", threads=target.runtime.threads, precision=precision)
            cast("OpenVinoSession", session).compiled  # noqa: B018 - the property compiles
        described = session.describe()
        meta = {key: described[key] for key in ("runtime", "version", "inference_precision")}
        return CompiledModel(self.name, path, path, meta)

    def load(self, compiled: CompiledModel, target: Target) -> Session:
        """See `Backend.load`."""
        precision = compiled.meta.get("inference_precision", target.runtime.inference_precision)
        with runtime_errors(str(compiled.path)):
            return open_session(compiled.path, "openvino", threads=target.runtime.threads, precision=precision)

    def coverage(self, compiled: CompiledModel, target: Target) -> list[LayerInfo]:
        """See `Backend.coverage`; read from the plugin's runtime model at batch 1."""
        with runtime_errors(str(compiled.path)):
            return compute_layers(compiled.path, self._session(compiled, target).compiled, _options(compiled, target))

    def other_layers(self, compiled: CompiledModel, target: Target) -> list[LayerInfo]:
        """See `Backend.other_layers`."""
        with runtime_errors(str(compiled.path)):
            return layers_of(self._session(compiled, target).compiled)[1]

    def profile(self, compiled: CompiledModel, target: Target, feeds: dict[str, np.ndarray]) -> list[LayerTime]:
        """See `Backend.profile`."""
        self.load(compiled, target)  # a missing runtime and a broken file are told as everywhere
        return kernel_times(compiled.path, _options(compiled, target), feeds)

    def _session(self, compiled: CompiledModel, target: Target) -> OpenVinoSession:
        return cast("OpenVinoSession", self.load(compiled, target))


def _options(compiled: CompiledModel, target: Target) -> dict[str, str]:
    precision = compiled.meta.get("inference_precision", target.runtime.inference_precision)
    return compile_options(target.runtime.threads, precision=precision)


def cpu_capabilities() -> list[str]:
    """What the CPU plugin says that this CPU computes in; empty where OpenVINO is not installed."""
    try:
        core = openvino_core()
    except ImportError:
        return []
    return list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
