"""What an engine really runs, from TensorRT's EngineInspector (needs the GPU that the engine is for)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from edgekd.forms import LayerInfo
from edgekd.runtime.sessions import SessionError
from edgekd.runtime.tensorrt_api import SUFFIX, Flavor, load_tensorrt, make_logger

_COMPUTE_TYPES = {"convolution", "deconvolution", "matrixmultiply", "gemm", "fullyconnected"}
# A fused layer's name lists the nodes it is made of; ONNX node names of compute ops start with their op.
_COMPUTE_NAME = re.compile(r"conv|gemm|matmul|fc(?=\d|$|\W)|linear|sm\d+_xmma", re.IGNORECASE)
_DATA_MOVERS = {"reformat", "noop", "constant", "shuffle", "signal", "wait", "cast", "quantize", "dequantize"}


def engine_layers(engine: Path, *, compute: bool) -> list[LayerInfo]:
    """The compute layers of a serialized engine, or all its other layers.

    Raises:
        RuntimeMissing, SessionError: the library is missing, or the engine is not for this GPU and version.
    """
    flavor: Flavor = "tensorrt-rtx" if engine.suffix == SUFFIX["tensorrt-rtx"] else "tensorrt"
    trt, logger = load_tensorrt(flavor), make_logger(flavor)
    loaded = trt.Runtime(logger).deserialize_cuda_engine(engine.read_bytes())
    if loaded is None:
        raise SessionError(f"{flavor} cannot load {engine}: {logger.errors()}")
    inspector = loaded.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return [layer for layer, is_compute in parse_layers(text) if is_compute == compute]


def parse_layers(text: str) -> list[tuple[LayerInfo, bool]]:
    """Layers of an inspector's JSON, each with whether it is a compute layer.

    ``integer`` means that its first input is int8. TensorRT to 10 writes "Format/Datatype": "... Int8 ...", 11
    splits the field into "Format" and "Datatype". Without ProfilingVerbosity.DETAILED layers are names only.
    """
    found = []
    for row in json.loads(text).get("Layers", []):
        if isinstance(row, str):
            found.append((LayerInfo(row, "", False, ""), bool(_COMPUTE_NAME.search(row))))
            continue
        name, kind = str(row.get("Name", "")), str(row.get("LayerType", ""))
        precision = _type(row.get("Inputs") or [])
        layer = LayerInfo(name, kind, "int8" in precision.lower(), precision)
        found.append((layer, _is_compute(name, kind, str(row.get("ParameterType", "")))))
    return found


def _is_compute(name: str, kind: str, parameter: str) -> bool:
    lowered = kind.lower()
    if any(mover in lowered for mover in _DATA_MOVERS):
        return False
    if parameter.lower() in _COMPUTE_TYPES or any(word in lowered for word in _COMPUTE_TYPES):
        return True
    return parameter == "" and bool(_COMPUTE_NAME.search(name))


def _type(inputs: list[Any]) -> str:
    if not inputs or not isinstance(inputs[0], dict):
        return ""
    first = inputs[0]
    text = str(first.get("Datatype") or first.get("DataType") or first.get("Format/Datatype") or "")
    match = re.search(r"Int8|FP8|Half|Float|BFloat16|FP16|FP32|Int32|Int64|Bool", text, re.IGNORECASE)
    return match.group(0) if match else text
