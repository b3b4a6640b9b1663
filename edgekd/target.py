"""Where a model runs: targets, this machine's instruction set, and calibration policies."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr

from edgekd.errors import BadRecipe, BadTarget
from edgekd.runtime.machine import VNNI, best_isa, is_machine_of
from edgekd.runtime.requirement import Requirement
from edgekd.yaml_source import load_yaml, nearest, validate

Isa = Literal["host", "avx2", "avx512", "avx512-vnni", "avx-vnni", "amx", "neon", "neon-dot"]
# Part of a bundle's folder name.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Part(BaseModel):
    """Base of a target's parts: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _requirement(versions: str) -> str:
    Requirement.parse(f"runtime{versions}")
    return versions


def _pattern(board: str) -> str:
    try:
        re.compile(board)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return board


class RuntimeConfig(Part):
    """How the runtime is set: ``threads`` of one inference, the ``cores`` that measuring is pinned to (None: any),
    TensorRT's ``workspace_mb`` (MiB).
    """

    versions: Annotated[str, AfterValidator(_requirement)] = ""
    flavour: Literal["default", "rtx"] = "default"
    threads: Annotated[int, Field(ge=1, le=1024)] = 2
    cores: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    inference_precision: Literal["f32", "bf16", "f16"] = "f32"
    workspace_mb: Annotated[int, Field(ge=1)] = 1024
    dla: bool = False


class Target(Part):
    """One place to run: backend, precision, architecture, instruction set; ``board`` is a pattern of its name."""

    name: Name
    aliases: tuple[Name, ...] = ()
    about: str = ""
    backend: Literal["onnxruntime", "openvino", "tensorrt"]
    precision: Literal["int8", "fp32", "fp16"] = "int8"
    arch: Literal["host", "x86_64", "aarch64"] = "host"
    isa: Isa | None = None
    board: Annotated[str, AfterValidator(_pattern)] | None = None
    runtime: RuntimeConfig = RuntimeConfig()
    device: str | None = None
    container: str | None = None
    _file: str = PrivateAttr("")

    @property
    def called(self) -> str:
        """How a command names it: the name of its file, where it is a user's own."""
        return self._file or self.name

    @property
    def library(self) -> str:
        """The runtime's package: the backend's name, but for TensorRT for RTX, which is a library of its own."""
        return "tensorrt-rtx" if self.runtime.flavour == "rtx" else self.backend

    def resolved_isa(self) -> str | None:
        """The instruction set with "host" replaced by this machine's; so is none, where the target may be this one."""
        if self.isa == "host" or (self.isa is None and self._is_cpu_of_this_architecture()):
            return best_isa()
        return self.isa

    def has_vnni(self) -> bool:
        """Whether u8 x s8 products accumulate without 16-bit saturation (VNNI, AMX, ARM dot or NEON, any GPU)."""
        if self.backend == "tensorrt":
            return True
        isa = self.resolved_isa()
        # Of an x86 CPU that is not named the worst is expected.
        return self.arch == "aarch64" if isa is None else isa in VNNI or isa.startswith("neon")

    def is_here(self) -> bool:
        """Whether this machine can run and time the target: its architecture, instruction set, board and GPU."""
        if not is_machine_of({"arch": self.arch, "isa": self.isa, "board": self.board}):
            return False
        return self.backend != "tensorrt" or _has_gpu()

    def _is_cpu_of_this_architecture(self) -> bool:
        return self.backend != "tensorrt" and self.arch in ("host", platform.machine())


class CalibrationPolicy(Part):
    """How many samples are observed, which, and how their range becomes a scale.

    ``batch_size`` samples are one batch of the moving average, to which ``averaging`` is the weight of the newest;
    ``percentile`` of all magnitudes lie within the range that this estimator gives.
    """

    name: str = "default"
    about: str = ""
    samples: Annotated[int, Field(ge=1)] = 512
    batch_size: Annotated[int, Field(ge=1)] = 32
    estimator: Literal["min-max", "moving-average", "percentile", "mse", "entropy"] = "moving-average"
    averaging: Annotated[float, Field(gt=0, le=1)] = 0.05
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    class_balanced: bool = True
    seed: int = 0


def load_target(name: str) -> Target:
    """A shipped target by name or alias, or a target file.

    Raises:
        BadTarget: unknown, or a file that does not validate.
    """
    if name.endswith((".yaml", ".yml")):
        target = _read(Path(name))
        target._file = Path(name).name
        return target
    for target in list_targets():
        if name in (target.name, *target.aliases):
            return target
    known = [n for target in list_targets() for n in (target.name, *target.aliases)]
    raise BadTarget(f"unknown target {name!r}", remedy=f"{nearest(name, known)}; list them with: edgekd targets")


@cache
def list_targets() -> tuple[Target, ...]:
    """The targets that ship with edgekd, by name."""
    return tuple(_read(path) for path in sorted(shipped("targets").glob("*.yaml")))


def load_calibration(name: str) -> CalibrationPolicy:
    """A shipped calibration policy by name, or a policy file.

    Raises:
        BadRecipe: unknown, or a file that does not validate.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
    else:
        known = sorted(found.stem for found in shipped("calibration").glob("*.yaml"))
        if name not in known:
            raise BadRecipe(
                f"unknown calibration policy {name!r}", where="quantize.calibration", remedy=nearest(name, known)
            )
        path = shipped("calibration") / f"{name}.yaml"
    value, places = load_yaml(path, BadRecipe)
    return validate(CalibrationPolicy, {"name": path.stem} | value, source=str(path), places=places, error=BadRecipe)


def shipped(folder: str) -> Path:
    """A data folder of edgekd: inside the package in a wheel, beside it in a checkout."""
    inside = Path(__file__).parent / folder
    return inside if inside.is_dir() else Path(__file__).parent.parent / folder


@cache
def _has_gpu() -> bool:
    # Here, since it brings numpy.
    from edgekd.runtime.tensorrt_api import has_gpu

    return has_gpu()


def _read(path: Path) -> Target:
    value, places = load_yaml(path, BadTarget)
    return validate(Target, value, source=str(path), places=places, error=BadTarget)
