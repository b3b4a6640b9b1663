"""Which candidate of a bundle runs here: what `finalize` chose on this device, else what the build chose."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from .bundle_files import CHOICE, MANIFEST, OPEN_FOLDER, BundleError, check_file, digest, locate, read_json
from .machine import machine_name, saturates
from .manifest import candidate_named

_AGAIN = "run the bundle's finalize step again on this device"


class NeedsVnni(BundleError):
    """The bundle is whole, but this CPU would compute the candidate wrongly, without a word."""


class Selection(NamedTuple):
    """A candidate's row of the manifest, the file that is loaded (relative, with its SHA-256), and who chose it.

    ``engine`` is what an engine made on the device is bound to (`gpu.engine_binding`), else None.
    """

    candidate: dict[str, Any]
    path: str
    sha256: str
    by: str
    engine: dict[str, str] | None = None


def select(root: Path, manifest: dict[str, Any], name: str | None = None) -> Selection:
    """The candidate ``name`` as it was packed, or without a name the choice of the device, else of the build.

    Raises:
        BundleError: no such candidate, or a choice of the device that does not belong to this bundle.
    """
    if name is None and (root / CHOICE).exists():
        return read_choice(root, manifest)
    row = candidate_named(manifest, name or manifest["chosen"])
    return Selection(row, row["path"], manifest["files"][row["path"]]["sha256"], "name" if name else "build")


def read_choice(root: Path, manifest: dict[str, Any]) -> Selection:
    """What device/choice.json says.

    Raises:
        BundleError: its candidate is not in the manifest, its ONNX file is another, or it names no file of its own.
    """
    path = locate(root, CHOICE)
    value = read_json(path)
    texts = ("candidate", "onnx_sha256", "path", "sha256")
    if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in texts):
        raise BundleError("is not a choice that finalize wrote", str(path), _AGAIN)
    try:
        row = candidate_named(manifest, value["candidate"])
    except BundleError as error:
        raise BundleError(error.what, str(path), _AGAIN) from error
    if manifest["files"][row["onnx"]]["sha256"] != value["onnx_sha256"]:
        raise BundleError(f"was made for another {row['onnx']}", str(path), _AGAIN)
    engine = value.get("engine")
    if value["path"] in (row["path"], row["onnx"]):
        packed, engine = manifest["files"][value["path"]]["sha256"], None
        if packed != value["sha256"]:
            raise BundleError(f"was made for another {value['path']}", str(path), _AGAIN)
    elif not value["path"].startswith(f"{OPEN_FOLDER}/{row['name']}/") or not isinstance(engine, dict):
        raise BundleError(f"names {value['path']!r}, which is no file of the candidate", str(path), _AGAIN)
    return Selection(row, value["path"], value["sha256"], "device", engine)


def check_cpu(manifest: dict[str, Any], candidate: dict[str, Any]) -> None:
    """That this CPU computes a candidate's integers as they were lowered.

    Raises:
        NeedsVnni: its sums may leave 16 bits, where this CPU saturates; names the candidates that it computes rightly.
    """
    if not (candidate.get("needs_vnni") and saturates()):
        return
    remedy = "run it on a CPU with VNNI, or build it for this one: a target with `isa: avx2`"
    safe = [row["name"] for row in manifest["candidates"] if not row.get("needs_vnni")]
    if safe:
        remedy += f"; or let the bundle's finalize step choose here: {', '.join(safe)} would do"
    raise NeedsVnni(
        f"{candidate['name']} was lowered for CPUs whose integer sums do not saturate, as with VNNI or on ARM; this"
        f" one's do, and its answers would be wrong: {machine_name()}",
        f"{MANIFEST}: candidates",
        remedy,
    )


def check_selected(root: Path, manifest: dict[str, Any], selection: Selection) -> Path:
    """The file of a selection, its hash checked.

    Raises:
        BundleError: it is missing or another.
    """
    if selection.engine is None:
        return check_file(root, selection.path, manifest["files"][selection.path])
    path = locate(root, selection.path)
    if digest(path) != selection.sha256:
        raise BundleError("is not the engine that finalize built", str(path), _AGAIN)
    return path
