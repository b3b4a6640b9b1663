"""TensorRT engines on the device: a cache bound to GPU, TensorRT, driver and ONNX file, rebuilt when they differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .bundle_files import OPEN_FOLDER, BundleError, check_file, digest, read_json, write_json
from .gpu import flavor_of
from .selection import Selection
from .tensorrt_api import SUFFIX
from .tensorrt_build import build_engine


def device_folder(root: Path, name: str = "") -> Path:
    """The folder device/NAME of a bundle, made if need be.

    Raises:
        BundleError: it is a symbolic link or no folder.
    """
    for place in (root / OPEN_FOLDER, root / OPEN_FOLDER / name):
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise BundleError("must be a folder of the bundle", str(place), "remove it")
        place.mkdir(exist_ok=True)
    return root / OPEN_FOLDER / name


def ensure_engine(
    root: Path,
    manifest: dict[str, Any],
    candidate: dict[str, Any],
    binding: dict[str, str],
    say: Callable[[str], object] = lambda _: None,
) -> Selection:
    """The candidate's engine for what this machine is bound to (`gpu.engine_binding`), built unless it is there.

    Raises:
        BundleError: the ONNX file does not hold.
        BuildFailed: TensorRT refuses it.
    """
    onnx = check_file(root, candidate["onnx"], manifest["files"][candidate["onnx"]])
    flavor = flavor_of(manifest)
    folder = device_folder(root, candidate["name"])
    engine, note = folder / f"model{SUFFIX[flavor]}", folder / "engine.json"
    workspace = int(manifest["target"].get("runtime", {}).get("workspace_mb") or 1024)
    wanted = {"onnx_sha256": manifest["files"][candidate["onnx"]]["sha256"], "workspace_mb": workspace, **binding}
    found = _note(note)
    if found.get("made_for") != wanted or not engine.is_file() or digest(engine) != found.get("sha256"):
        say(f"{candidate['name']}: building its engine with {binding['runtime']} for {binding['gpu']}")
        timing = folder.parent / "timing.cache" if flavor == "tensorrt" else None
        build_engine(onnx, engine, flavor, workspace_mb=workspace, timing_cache=timing)
        write_json(note, {"made_for": wanted, "sha256": digest(engine)})
    name = engine.relative_to(root).as_posix()
    return Selection(candidate, name, digest(engine), "device", binding)


def _note(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except BundleError:
        return {}
    return value if isinstance(value, dict) else {}
