"""What a TensorRT engine is bound to: the GPU, its driver and the TensorRT that built it."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

from .sessions import RuntimeMissing
from .tensorrt_api import Flavor, has_gpu, load_tensorrt

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


def flavor_of(manifest: dict[str, Any]) -> Flavor:
    """Which of TensorRT's two libraries a bundle's target means."""
    return "tensorrt-rtx" if manifest["target"].get("runtime", {}).get("flavour") == "rtx" else "tensorrt"


def engine_binding(flavor: Flavor) -> dict[str, str]:
    """``gpu``, ``compute_capability``, ``driver`` and ``runtime`` of this machine: an engine is used with equal ones.

    Raises:
        RuntimeMissing: the library or a GPU is not here.
    """
    trt = load_tensorrt(flavor)
    if not has_gpu():
        raise RuntimeMissing(
            f"{flavor} {trt.__version__} is installed, but this machine has no NVIDIA GPU (or no driver for it)"
        )
    name, capability, driver = _device()
    return {
        "gpu": name,
        "compute_capability": capability,
        "driver": _driver_release() or driver,
        "runtime": f"{flavor} {trt.__version__}",
    }


def _device() -> tuple[str, str, str]:
    """Name and compute capability of the first GPU and the driver's CUDA version, from CUDA's driver API."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise RuntimeMissing(f"CUDA's driver library is not found ({error})") from error
    device, number = ctypes.c_int(0), ctypes.c_int(0)
    text = ctypes.create_string_buffer(256)
    status = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0)
    status = status or driver.cuDeviceGetName(text, len(text), device)
    found = []
    for attribute in (_MAJOR, _MINOR):
        status = status or driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        found.append(str(number.value))
    status = status or driver.cuDriverGetVersion(ctypes.byref(number))
    if status:
        raise RuntimeMissing(f"CUDA's driver does not answer (error {status})")
    return text.value.decode(errors="replace"), ".".join(found), f"cuda {number.value}"


def _driver_release() -> str:
    """The kernel driver's release, on a Jetson its L4T release; empty where neither is told."""
    for path, pattern in (
        ("/proc/driver/nvidia/version", r"\b\d+\.\d+(?:\.\d+)?\b"),
        ("/etc/nv_tegra_release", r"R\d+.*?REVISION: [\d.]+"),
    ):
        try:
            found = re.search(pattern, Path(path).read_text(errors="replace"))
        except OSError:
            continue
        if found:
            return found[0]
    return ""
