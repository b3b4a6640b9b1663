"""The values that stages hand to each other around quantization: Site, Master, QuantForm, CompiledModel, LayerInfo.

Numpy and the standard library only, so that every layer may know them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Sign = Literal["nonnegative", "signed"]
FloatType = Literal["fp32", "fp16", "bf16"]
# Groups of layers that a candidate may leave in float. "gates": squeeze-and-excite branches (pooled 1x1 convs,
# the gate and its Mul); "hardswish": hardswish and the sigmoids of SiLU; "attention": products of two activations;
# "first"/"last": first conv, last linear; "all".
FloatGroup = Literal["gates", "hardswish", "attention", "first", "last", "all"]

# Where lower/ notes the form in a file's metadata, so that a file found alone still tells how it is to be compiled.
FORM_KEY = "edgekd.form"


@dataclass(frozen=True)
class Site:
    """One QuantizeLinear/DequantizeLinear pair on an activation of the master.

    ``tensor`` is the name of the float value that is quantized (the Q's input); ``scale`` a positive float32;
    ``zero_point`` always 0 in the strict form. ``sign`` is structural (after ReLU, sigmoid, ...), never observed, and
    so is ``floor``: what a signed value cannot fall below (behind hardswish, SiLU, GELU), None where nothing is known.
    """

    tensor: str
    sign: Sign
    scale: float
    zero_point: int = 0
    floor: float | None = None


@dataclass(frozen=True)
class Master:
    """The strict symmetric graph: an ONNX file with every site, float weights, and the table of its sites."""

    path: Path
    sites: tuple[Site, ...]

    def save_table(self, path: Path) -> None:
        """Write the site table as JSON."""
        path.write_text(json.dumps([asdict(site) for site in self.sites], indent=1))

    @classmethod
    def load(cls, folder: Path) -> Master:
        """Read ``master.onnx`` and ``sites.json`` of an artifact folder."""
        rows = json.loads((folder / "sites.json").read_text())
        return cls(folder / "master.onnx", tuple(Site(**row) for row in rows))


@dataclass(frozen=True)
class QuantForm:
    """What a lowering writes, as a value.

    ``rules`` names the file of lower/ that applies it. ``nonnegative``: "u8/255" = uint8, zero point 0, scale
    r/255; "s8-128" = int8, zero point -128, scale r/255; "s8/127" = int8, zero point 0, scale r/127.
    ``signed``: "u8@128" or "s8", of what is concatenated ``joined``, where that is not None; ``floors``: the type whose
    codes are all for what a value that cannot fall below a floor can be.
    ``cure``: what layers beyond the overflow bound get on CPUs without VNNI, tightened weights or the cheaper of those
    and a non-negative input in 127 codes (lower/cures.py). ``bias``: "int32" gives linear layers an
    int32 DQ bias, those on tokens too (lower/tokens.py). ``float_groups``: what stays in float, ``float_layers``: what
    else does, by the names of the master's values that those nodes compute; ``float_type``: the type of everything that
    is not integer. ``weights``: "int8" stores the weights of an all-float form as int8 per output channel, and the
    arithmetic stays float.
    """

    name: str
    rules: Literal["onnxruntime", "openvino", "tensorrt"]
    nonnegative: Literal["u8/255", "s8-128", "s8/127"] = "u8/255"
    signed: Literal["u8@128", "s8"] = "u8@128"
    joined: Literal["u8@128", "s8"] | None = None
    floors: Literal["none", "u8", "s8"] = "none"
    cure: Literal["none", "weights", "cheaper"] = "none"
    bias: Literal["float", "int32"] = "float"
    float_groups: frozenset[FloatGroup] = frozenset()
    float_layers: frozenset[str] = frozenset()
    float_type: FloatType = "fp32"
    weights: Literal["float", "int8"] = "float"

    @property
    def integer(self) -> bool:
        """Whether any layer is integer in this form."""
        return "all" not in self.float_groups

    @property
    def exact(self) -> bool:
        """Whether its file holds the float network's own numbers, neither rounded nor moved."""
        return self.float_type == "fp32" and self.weights == "float" and not self.integer

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self) | {"float_groups": sorted(self.float_groups), "float_layers": sorted(self.float_layers)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> QuantForm:
        """The inverse of `to_json`."""
        return cls(**(row | {key: frozenset(row.get(key, ())) for key in ("float_groups", "float_layers")}))


@dataclass(frozen=True)
class CompiledModel:
    """What a backend made of a lowered ONNX file: ``path`` is the file that `Backend.load` takes."""

    backend: str
    path: Path
    onnx: Path
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerInfo:
    """One compute layer of a compiled model: ``op`` as the runtime names it, ``integer`` when it runs in int8."""

    name: str
    op: str
    integer: bool
    precision: str = ""


@dataclass(frozen=True)
class LayerTime:
    """One kernel of a compiled model in the runtime's own profile: the median of several runs at batch 1.

    ``values``: what it computes, by the names of the ONNX file, as far as the runtime tells.
    """

    name: str
    op: str
    microseconds: float
    integer: bool
    values: tuple[str, ...] = ()
