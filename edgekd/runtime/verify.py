"""Does a bundle hold what it promises, on this machine?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import preprocess
from .bundle_files import CHOICE, NO_CACHE, BundleError, check_file, unlisted
from .golden import load_array, load_raw, match_outputs
from .manifest import identity, read_manifest
from .measurements import read_measurements
from .model import NotFinalized, open_selected, ready_file
from .requirement import Requirement
from .selection import NeedsVnni, Selection, check_cpu, check_selected, read_choice, select
from .sessions import RuntimeMissing, SessionError, list_runtimes

# Checks of what is here: where they fail, the bundle may hold all the same.
OF_THIS_MACHINE = ("runtime", "cpu")


class Check(NamedTuple):
    """One check: ``ok`` is None where it could not run here, and ``detail`` then says why."""

    name: str
    ok: bool | None
    detail: str

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return self._asdict()


def verify(root: Path, *, run: bool = True) -> list[Check]:
    """Every check of the bundle at ``root``: files, runtime, preprocessing, CPU and golden outputs.

    Nothing of a bundle is loaded whose hash does not hold: what depends on it is then not run. Without ``run`` the
    golden outputs are left to a measuring process, which checks them before it measures: a model that crashes or hangs
    then takes no other process with it. What the model needs on this device is checked all the same.

    Raises:
        BundleError: there is no bundle at all: no folder, or no manifest in it.
    """
    if not root.is_dir():
        raise BundleError("is not a bundle: a bundle is a folder", str(root))
    if not (root / "manifest.json").is_file():
        raise BundleError("is not a bundle: it has no manifest.json", str(root))
    try:
        manifest = read_manifest(root)
    except BundleError as error:
        return [Check("manifest", False, str(error))]
    told = f"{manifest['name']} for {manifest['target']['name']}, {manifest['precision']}, identity {identity(root)}"
    checks = [Check("manifest", True, told)]
    checks += [_hashes(root, manifest), _no_others(root, manifest), *_open_files(root, manifest)]
    runtime = check_runtime(manifest)
    checks.append(runtime)
    if any(check.ok is False for check in checks if check is not runtime):
        why = "not run, since the bundle's files do not hold"
        return [*checks, Check("preprocessing", None, why), Check("outputs", None, why)]
    return [*checks, _preprocessing(root, manifest), *_outputs(root, manifest, runtime, run)]


def check_runtime(manifest: dict[str, Any]) -> Check:
    """Whether the bundle's runtime is installed in a version that it allows."""
    from .gpu import flavor_of

    wanted = manifest["runtime_requirement"]
    backend = manifest["backend"]
    package = flavor_of(manifest) if backend == "tensorrt" else backend
    info = next(info for info in list_runtimes(gpu=backend == "tensorrt") if info.name == package)
    if not info.ok:
        why = info.reason if info.reason.startswith(package) else f"{package} is {info.reason}"
        return Check("runtime", None, f"{wanted} is needed: {why}; install it with: {info.install}")
    if not Requirement.parse(wanted).allows(info.version):
        return Check("runtime", False, f"{package} {info.version} is installed, the bundle needs {wanted}")
    return Check("runtime", True, f"{package} {info.version}, the bundle needs {wanted}")


def exit_code(checks: list[Check]) -> int:
    """0: all held; 2: the bundle does not hold; 5: its runtime, or the GPU or CPU for it, is not here."""
    if any(check.ok is False and check.name not in OF_THIS_MACHINE for check in checks):
        return 2
    return 0 if all(check.ok for check in checks) else 5


def outcome(checks: list[Check]) -> bool | None:
    """Whether the bundle is verified; None where what could be checked here holds, and that is not all."""
    return {0: True, 2: False}.get(exit_code(checks))


def tell(checks: list[Check]) -> list[str]:
    """The checks as a person reads them, a line each, and the verdict as the last one."""
    words = {True: "ok", False: "FAILED", None: "not run"}
    verdicts = {
        True: "verified",
        False: "NOT verified: copy the bundle again, and keep files of your own outside of it",
        # A runtime of another version, or another CPU, is no fault of the bundle's either.
        None: f"NOT verified in full: {sum(check.ok is not True for check in checks)} checks could not run here",
    }
    verdict = verdicts[outcome(checks)]
    return [*(f"{words[check.ok]:8} {check.name}: {check.detail}" for check in checks), verdict]


def _hashes(root: Path, manifest: dict[str, Any]) -> Check:
    faults, size = [], 0
    for name, row in sorted(manifest["files"].items()):
        try:
            check_file(root, name, row)
            size += row["size"]
        except BundleError as error:
            faults.append(str(error))
    detail = f"{len(manifest['files'])} files, {size} bytes, are those of the manifest"
    return Check("hashes", not faults, "; ".join(faults) or detail)


def _no_others(root: Path, manifest: dict[str, Any]) -> Check:
    found = unlisted(root, manifest["files"])
    if not found:
        return Check("unlisted files", True, "none")
    shown = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    hint = " (Python's cache: remove it)" if any(NO_CACHE in name for name in found) else ""
    return Check("unlisted files", False, f"not in the manifest: {shown}{hint}")


def _open_files(root: Path, manifest: dict[str, Any]) -> list[Check]:
    """What is told only where it is wrong, or is there: the measurements and the device's choice."""
    checks = []
    try:
        read_measurements(root)
    except BundleError as error:
        checks.append(Check("measurements", False, str(error)))
    if (root / CHOICE).exists() or (root / CHOICE).is_symlink():
        try:
            chosen = read_choice(root, manifest)
            check_selected(root, manifest, chosen)
            checks.append(Check("device choice", True, f"{chosen.candidate['name']}, {chosen.path}"))
        except BundleError as error:
            checks.append(Check("device choice", False, str(error)))
    return checks


def _preprocessing(root: Path, manifest: dict[str, Any]) -> Check:
    allowed = float(manifest["golden"]["input_tolerance"])
    try:
        want = load_array(root, manifest, manifest["golden"]["input"])
        got = np.stack([preprocess.apply(manifest["preprocess"], raw) for raw in load_raw(root, manifest)])
    except (BundleError, ValueError) as error:
        return Check("preprocessing", False, str(error))
    if got.shape != want.shape or got.dtype != want.dtype:
        return Check("preprocessing", False, f"gives {got.dtype} {got.shape}, golden is {want.dtype} {want.shape}")
    spread = float(np.max(np.abs(got.astype(np.float64) - want), initial=0.0))
    detail = f"{len(got)} raw samples; differs by at most {spread:.3g}, allowed {allowed:.3g}"
    return Check("preprocessing", spread <= allowed, detail)


def _outputs(root: Path, manifest: dict[str, Any], runtime: Check, run: bool) -> list[Check]:
    if runtime.ok is None:
        return [Check("outputs", None, f"not run: {runtime.detail}")]
    checks: list[Check] = []
    try:
        selection = select(root, manifest)
        checks += _cpu(manifest, selection)
        if any(check.ok is False for check in checks):
            return [*checks, Check("outputs", None, "not run, since this CPU would compute them wrongly")]
        if not run:
            ready_file(root, manifest, selection)
            return checks
        session = open_selected(root, manifest, selection)
        matches = match_outputs(root, manifest, selection.candidate, session)
    except RuntimeMissing as error:
        return [*checks, Check("outputs", None, f"not run: {error.what}")]
    except NotFinalized as error:
        return [*checks, Check("outputs", None, f"not run: {error.what}; {error.remedy}")]
    except (BundleError, SessionError) as error:
        return [*checks, Check("outputs", False, str(error))]
    name = selection.candidate["name"]
    return checks + [Check(f"output {match.output}", match.ok, f"{name} {match.detail}") for match in matches]


def _cpu(manifest: dict[str, Any], selection: Selection) -> list[Check]:
    """Told only of a candidate that not every CPU computes rightly."""
    name = selection.candidate["name"]
    try:
        check_cpu(manifest, selection.candidate)
    except NeedsVnni as error:
        return [Check("cpu", False, f"{error.what}; {error.remedy}")]
    return [Check("cpu", True, f"{name} needs sums of 32 bits")] if selection.candidate.get("needs_vnni") else []
