"""TensorRT and TensorRT-RTX (docs/placement.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.backends.base import (
    Availability,
    float_form,
    integer_forms,
    offered,
    place,
    precision_of,
    runtime_errors,
)
from edgekd.backends.tensorrt_layers import engine_layers
from edgekd.errors import BadTarget, Missing
from edgekd.forms import CompiledModel, LayerInfo, LayerTime, QuantForm
from edgekd.runtime.sessions import RuntimeMissing, Session, open_session
from edgekd.runtime.tensorrt_api import (
    SUFFIX,
    Flavor,
    has_gpu,
    load_tensorrt,
    tensorrt_infos,
)
from edgekd.runtime.tensorrt_build import build_engine

if TYPE_CHECKING:
    import numpy as np

    from edgekd.target import Target

FORM = QuantForm(name="int8", rules="tensorrt", nonnegative="s8/127", signed="s8", float_type="fp16")
# GPUs that the check without a GPU builds for; Orin is 8.7, which RTX does not know: 8.6 is its nearest kin.
CHECKED = ["8.6", "8.9"]


class TensorRtBackend:
    """`Backend` of TensorRT, and of TensorRT-RTX for targets with ``runtime.flavour: rtx``.

    With the target's GPU at hand ``compile`` builds the engine. Without, the ONNX file is what ships (the device
    builds its engine in `finalize`), and the real parser and builder of TensorRT-RTX, which need no GPU, prove
    that it can be built: ``meta["builder_check"]`` is "ok" or "not installed".
    """

    name = "tensorrt"

    def probe(self, target: Target | None = None) -> Availability:
        """See `Backend.probe`: ok with either library; ``reason`` tells when there is no GPU to run on."""
        rows = [row for row in tensorrt_infos() if target is None or row[0] == flavor_of(target)]
        # Of one target's library the version says all; of both, each wants its name.
        found = [version if target else f"{name} {version}" for name, ok, version, _, _ in rows if ok]
        if not found:
            return Availability(False, "", rows[0][3], rows[0][4])
        return Availability(True, ", ".join(found), next(reason for _, ok, _, reason, _ in rows if ok), "")

    def candidates(self, target: Target) -> list[QuantForm]:
        """See `Backend.candidates`; the rtx target is fp16, since RTX documents int8 for weights only."""
        return offered(target, integer_forms(FORM, vnni=True), [float_form(FORM, "fp16"), float_form(FORM)])

    def compile(self, onnx: Path, target: Target, out: Path, *, form: QuantForm | None = None) -> CompiledModel:
        """See `Backend.compile`."""
        if target.runtime.dla:
            raise BadTarget(
                "the DLA takes implicitly quantized networks only, which edgekd does not write",
                where=f"target {target.name}: runtime.dla",
                remedy="use dla: false",
            )
        path = place(onnx, out)
        flavor = flavor_of(target)
        meta: dict[str, Any] = {
            "runtime": flavor,
            "inference_precision": precision_of(onnx, form, target.runtime.inference_precision),
        }
        with runtime_errors(str(onnx), proving=True):
            if target.is_here():
                engine = path.with_suffix(SUFFIX[flavor])
                report = build_engine(
                    path,
                    engine,
                    flavor,
                    workspace_mb=target.runtime.workspace_mb,
                    timing_cache=path.with_suffix(".timing") if flavor == "tensorrt" else None,
                )
                path.with_suffix(".timing").unlink(missing_ok=True)
                built = {"version": report.version, "typing": report.typing, "builder_check": "ok"}
                return CompiledModel(self.name, engine, path, meta | built)
            return CompiledModel(self.name, path, path, meta | check_buildable(path, target.runtime.workspace_mb))

    def load(self, compiled: CompiledModel, target: Target) -> Session:
        """See `Backend.load`; Missing where only the ONNX file is there, since no engine was built here."""
        if compiled.path.suffix == ".onnx":
            raise Missing(
                f"{compiled.path.name} has no engine: engines are built where the GPU of {target.name} is",
                where=str(compiled.path),
                remedy="run the bundle's finalize step on the device",
            )
        precision = compiled.meta.get("inference_precision", "f32")
        with runtime_errors(str(compiled.path)):
            return open_session(compiled.path, "tensorrt", threads=target.runtime.threads, precision=precision)

    def coverage(self, compiled: CompiledModel, target: Target) -> list[LayerInfo]:
        """See `Backend.coverage`; empty without a GPU, where no engine can be inspected."""
        return self._layers(compiled, compute=True)

    def other_layers(self, compiled: CompiledModel, target: Target) -> list[LayerInfo]:
        """See `Backend.other_layers`; empty without a GPU."""
        return self._layers(compiled, compute=False)

    def profile(self, compiled: CompiledModel, target: Target, feeds: dict[str, np.ndarray]) -> list[LayerTime]:
        """See `Backend.profile`; empty: an engine's profiler needs its GPU, and is not read yet."""
        return []

    def _layers(self, compiled: CompiledModel, *, compute: bool) -> list[LayerInfo]:
        if compiled.path.suffix == ".onnx" or not has_gpu():
            return []
        with runtime_errors(str(compiled.path)):
            return engine_layers(compiled.path, compute=compute)


def flavor_of(target: Target) -> Flavor:
    """Which of the two libraries a target means."""
    return "tensorrt-rtx" if target.runtime.flavour == "rtx" else "tensorrt"


def check_buildable(onnx: Path, workspace_mb: int = 1024) -> dict[str, Any]:
    """Build a lowered file with TensorRT-RTX and throw the engine away.

    Returns the meta entries ``builder_check`` ("ok" or "not installed") and ``version`` of the builder.

    Raises:
        BuildFailed: the parser or the builder refuses the file.
    """
    try:
        load_tensorrt("tensorrt-rtx")
    except RuntimeMissing:
        return {"builder_check": "not installed", "version": ""}
    report = build_engine(onnx, None, "tensorrt-rtx", workspace_mb=workspace_mb, compute_capabilities=CHECKED)
    return {"builder_check": "ok", "version": f"tensorrt-rtx {report.version}", "typing": report.typing}
