"""The manifest of a bundle: read, and checked before anything in it is believed."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import Any

from .bundle_files import MANIFEST, OPEN_FILES, OPEN_FOLDER, BundleError, locate, path_fault, read_json
from .requirement import Requirement
from .sessions import RUNTIMES

SCHEMA = 1
PRECISIONS = ("f32", "bf16", "f16")
TOLERANCES = ("exact", "max_abs", "relative", "top1")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of the bundle at ``root``, checked by `check_manifest`.

    Raises:
        BundleError: there is none, or it does not hold.
    """
    if not root.is_dir():
        raise BundleError("is not a bundle: a bundle is a folder", str(root))
    path = locate(root, MANIFEST)
    value = read_json(path)
    check_manifest(value, str(path))
    return value  # type: ignore[no-any-return]


def identity(root: Path) -> str:
    """The bundle's identity: SHA-256 of the manifest's bytes."""
    return hashlib.sha256(locate(root, MANIFEST).read_bytes()).hexdigest()


def check_manifest(value: Any, where: str = MANIFEST) -> None:
    """Check the schema: every key that the runtime uses, its type, and that each file that is named is listed.

    Raises:
        BundleError: names the key.
    """
    top = _Reader(value, where)
    schema = top.of("schema", int)
    if schema != SCHEMA:
        raise BundleError(
            f"is {schema}, this runtime reads {SCHEMA}", f"{where}: schema", "use the runtime inside the bundle"
        )
    for key in ("name", "task", "precision"):
        top.of(key, str)
    for key in ("target", "recipe", "preprocess"):
        top.of(key, dict)
    top.inner("target").of("name", str)
    top.one_of("backend", RUNTIMES)
    if not all(isinstance(label, str) for label in top.of("labels", list)):
        top.fail("labels", "must be a list of texts")
    _check_files(top)
    _check_candidates(top)
    for key, least, most in (("inputs", 1, 1), ("outputs", 1, None)):
        rows = top.rows(key)
        if len(rows) < least or (most is not None and len(rows) > most):
            top.fail(key, f"has {len(rows)} entries, schema {SCHEMA} knows models of one input and at least one output")
        for row in rows:
            row.of("name", str)
            row.of("dtype", str)
            row.of("shape", list)
    _check_golden(top, top.inner("golden"))
    if top.value.get("drift") is not None:
        drift = top.inner("drift")
        for key in drift.value:
            drift.listed(key, top.value["files"])
    try:
        Requirement.parse(top.of("runtime_requirement", str))
    except ValueError as error:
        top.fail("runtime_requirement", str(error))


def candidate_named(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """The candidate ``name``.

    Raises:
        BundleError: there is none.
    """
    for row in manifest["candidates"]:
        if row["name"] == name:
            return dict(row)
    known = ", ".join(row["name"] for row in manifest["candidates"])
    raise BundleError(f"the bundle has no candidate {name!r}; it has {known}", MANIFEST)


def is_integer(candidate: dict[str, Any]) -> bool:
    """Whether any layer of a candidate is integer in its form."""
    form = candidate.get("form") or {}
    return "all" not in form.get("float_groups", ["all"])


class _Reader:
    """One JSON object with the place it stands at, for errors that name the key."""

    def __init__(self, value: Any, where: str) -> None:
        self.where = where
        if not isinstance(value, dict):
            raise BundleError("must be an object", where)
        self.value: dict[str, Any] = value

    def of(self, key: str, kind: type) -> Any:
        found = self.value.get(key)
        if key not in self.value:
            self.fail(key, "is missing")
        if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
            names = {int: "a whole number", str: "a text", list: "a list", dict: "an object", bool: "true or false"}
            self.fail(key, f"must be {names[kind]}")
        return found

    def one_of(self, key: str, known: tuple[str, ...]) -> str:
        found: str = self.of(key, str)
        if found not in known:
            self.fail(key, f"is {found!r}; known are {', '.join(known)}")
        return found

    def number(self, key: str) -> float:
        found = self.value.get(key)
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found) or found < 0:
            self.fail(key, "must be a number, at least 0")
        return float(found)  # type: ignore[arg-type]

    def inner(self, key: str) -> _Reader:
        return _Reader(self.of(key, dict), f"{self.where}: {key}")

    def rows(self, key: str) -> list[_Reader]:
        return [_Reader(row, f"{self.where}: {key}[{i}]") for i, row in enumerate(self.of(key, list))]

    def listed(self, key: str, files: dict[str, Any]) -> str:
        found: str = self.of(key, str)
        if found not in files:
            self.fail(key, f"names {found!r}, which is not among the files")
        return found

    def fail(self, key: str, what: str) -> None:
        raise BundleError(what, f"{self.where}: {key}")


def _check_files(top: _Reader) -> None:
    files = top.inner("files")
    for name in files.value:
        fault = path_fault(name)
        if fault:
            raise BundleError(f"the path {name!r} {fault}", files.where)
        if name == MANIFEST or name in OPEN_FILES or name.startswith(f"{OPEN_FOLDER}/"):
            raise BundleError(f"{name!r} cannot be listed: it may change after packing", files.where)
        row = files.inner(name)
        if not _SHA256.fullmatch(row.of("sha256", str)):
            row.fail("sha256", "must be 64 hexadecimal digits")
        if row.of("size", int) < 0:
            row.fail("size", "must be at least 0")


def _check_candidates(top: _Reader) -> None:
    rows = top.rows("candidates")
    names = []
    for row in rows:
        name = row.of("name", str)
        if not _NAME.fullmatch(name):  # it becomes a folder's name in device/
            row.fail("name", f"is {name!r}; letters, digits, '.', '_' and '-' are allowed")
        names.append(name)
        row.listed("onnx", top.value["files"])
        row.listed("path", top.value["files"])
        row.of("size_bytes", int)
        row.one_of("inference_precision", PRECISIONS)
        if row.value.get("form") is not None:
            row.of("form", dict)
        if "needs_vnni" in row.value:  # bundles of before have none
            row.of("needs_vnni", bool)
        if row.value.get("golden") is not None:
            _check_outputs(row.inner("golden"), top)
    if len(set(names)) != len(names):
        top.fail("candidates", "two have one name")
    if top.of("chosen", str) not in names:
        top.fail("chosen", f"is {top.value['chosen']!r}, which is no candidate")


def _check_golden(top: _Reader, golden: _Reader) -> None:
    if golden.of("samples", int) < 1:
        golden.fail("samples", "must be at least 1")
    golden.listed("raw", top.value["files"])
    golden.listed("input", top.value["files"])
    golden.number("input_tolerance")
    outputs = golden.inner("outputs")
    if not outputs.value:
        golden.fail("outputs", "is empty: nothing could be verified")
    _check_outputs(outputs, top)


def _check_outputs(outputs: _Reader, top: _Reader) -> None:
    known = [row.get("name") for row in top.of("outputs", list) if isinstance(row, dict)]
    for name in outputs.value:
        if name not in known:
            outputs.fail(name, "is no output of the model")
        row = outputs.inner(name)
        row.listed("file", top.value["files"])
        tolerance = row.inner("tolerance")
        if tolerance.one_of("kind", TOLERANCES) in ("max_abs", "relative"):
            tolerance.number("value")
