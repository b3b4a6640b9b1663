"""edgekd's own gate: may the bundle that this working tree builds replace the one that a release (or a commit) built?

    uv run python benchmarks/gate_self.py                        # against the last release's bundle
    uv run python benchmarks/gate_self.py --ref origin/main
    uv run python benchmarks/gate_self.py --reference digits-onnxruntime-cpu.zip --max-slowdown 1.03 --out gate
    uv run python benchmarks/gate_self.py --keep benchmarks/reference/digits-onnxruntime-cpu.zip      # at a release

The built-in recipe ``digits`` (its seed is fixed) is built by the working tree; what the store holds is not made again.
The reference is the bundle that the last release left in benchmarks/reference; or what a commit builds in a git
worktree of its own, with its own locked packages, kept under commit and target; or a bundle's folder, or an archive of
one (.zip, .tar, .tar.gz). All other options are ``edgekd bench``'s, whose exit code this one's is: 0 passed, 3
regression, 6 inconclusive, 2 bad input. Only the gate writes to stdout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgekd.store import write_bytes_atomic

ROOT = Path(__file__).resolve().parents[1]
EDGEKD = [sys.executable, "-m", "edgekd"]
RECIPE, TARGET = "digits", "onnxruntime-cpu"
RELEASED = ROOT / "benchmarks" / "reference" / f"{RECIPE}-{TARGET}.zip"
WORK = ROOT / "build" / "gate-self"
# timm too, though the recipe needs none of it: its version is part of the store's keys.
EXTRAS = ("build", "onnxruntime", "openvino", "timm")
INTERNAL, BAD_INPUT, MISSING, INTERRUPTED = 1, 2, 5, 130


class Refused(Exception):
    """One message and its exit code."""

    def __init__(self, what: str, code: int = BAD_INPUT) -> None:
        self.code = code
        super().__init__(what)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, find the reference, and gate; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--ref", help="a commit, branch or tag that builds the reference")
    which.add_argument("--reference", type=Path, help="a bundle's folder, or an archive of one (default: what the last "
                       "release left in benchmarks/reference)")  # fmt: skip
    which.add_argument("--keep", type=Path, metavar="ZIP", help="only build, and write the bundle there")
    parser.add_argument("--bundle", type=Path, help="the new bundle, where it was built already")
    parser.add_argument("--target", default=TARGET)
    parser.add_argument("--work", type=Path, default=WORK, help="where bundles are kept (default build/gate-self)")
    options, gate = parser.parse_known_args(arguments)
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            if options.keep:
                keep(options.bundle or build(EDGEKD, options.target, work / "new"), options.keep, Path(scratch))
                return 0
            if options.ref:
                reference = build_reference(options.ref, options.target, work)
            else:
                reference = find_reference(options.reference or released(options.target), Path(scratch))
            new = options.bundle or build(EDGEKD, options.target, work / "new")
            return subprocess.run([*EDGEKD, "bench", str(new), "--against", str(reference), *gate]).returncode
    except Refused as error:
        print(f"gate_self: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("gate_self: interrupted; the same command resumes a build, and measures anew", file=sys.stderr)
        return INTERRUPTED


def released(target: str) -> Path:
    """The bundle that the last release left."""
    if target != TARGET:
        raise Refused(f"the last release left a bundle for {TARGET} alone\n  name a commit instead: --ref origin/main")
    return RELEASED


def keep(bundle: Path, archive: Path, scratch: Path) -> None:
    """Write ``bundle`` as a .zip at ``archive``, whole or not at all."""
    try:
        made = Path(shutil.make_archive(str(scratch / "kept"), "zip", bundle.parent, bundle.name))
        archive.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(archive, made.read_bytes())
    except OSError as error:
        raise Refused(f"{archive}: cannot be written: {error.strerror}") from error


def find_reference(path: Path, scratch: Path) -> Path:
    """The bundle at ``path``; an archive is unpacked into ``scratch``."""
    if path.is_dir():
        return path
    if not path.is_file():
        raise Refused(f"{path}: there is no such bundle")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                archive.extractall(scratch)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                archive.extractall(scratch, filter="data")
        else:
            raise Refused(f"{path}: is neither a folder nor a .zip or .tar archive")
    except (zipfile.BadZipFile, tarfile.TarError, OSError) as error:
        raise Refused(f"{path}: cannot be unpacked: {error}") from error
    found = sorted(scratch.rglob("manifest.json"), key=lambda one: len(one.parts))
    if not found:
        raise Refused(f"{path}: has no manifest.json, so it is no bundle")
    return found[0].parent


def build_reference(ref: str, target: str, work: Path) -> Path:
    """The bundle that the commit ``ref`` builds for ``target`` with its own locked packages; kept in ``work``."""
    told = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    commit = told.stdout.strip()
    if told.returncode or not commit:
        raise Refused(f"{ref!r} is no commit of this repository")
    kept = work / f"reference-{commit[:16]}-{digest_of(target)}"
    found = bundle_in(kept)
    if found is not None:
        return found
    uv = shutil.which("uv")
    if uv is None:
        raise Refused("uv is not installed\n  install it with: pip install uv", MISSING)
    with tempfile.TemporaryDirectory(dir=work) as scratch, worktree(commit) as tree:
        built = build([str(environment_of(tree, uv) / "bin" / "edgekd")], target, Path(scratch) / "dist")
        try:
            built.parent.rename(kept)
        except OSError as error:
            # Another run at the same time was faster: its bundle is of the same commit.
            found = bundle_in(kept)
            if found is None:
                raise Refused(f"{kept}: the reference cannot be kept here: {error.strerror}\n  remove it") from error
            return found
    return kept / built.name


def digest_of(target: str) -> str:
    """What tells one target from another: of a file its content, which may change under its name."""
    file = Path(target)
    told = file.read_bytes() if file.is_file() else target.encode()
    return hashlib.sha256(told).hexdigest()[:8]


def bundle_in(folder: Path) -> Path | None:
    """The bundle's folder in ``folder``; None without one."""
    return next((manifest.parent for manifest in folder.glob("*/manifest.json")), None)


def environment_of(tree: Path, uv: str) -> Path:
    """A virtual environment inside of ``tree`` with the packages that it locks, and itself."""
    home = tree / ".venv"
    # Without what tests and benchmarks need, which is large. Nothing of the environment that this script runs in.
    extras = [word for name in EXTRAS for word in ("--extra", name)]
    command = [uv, "sync", "--quiet", "--project", str(tree), "--locked", "--no-default-groups", *extras]
    done = subprocess.run(command, cwd=tree, env=_environment() | {"UV_PROJECT_ENVIRONMENT": str(home)})
    if done.returncode or not (home / "bin" / "edgekd").is_file():
        raise Refused("the commit's packages cannot be installed from its lock file", MISSING)
    return home


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """The commit checked out in a temporary folder of its own, which goes again, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="edgekd-ref-") as folder:
        tree = Path(folder) / "tree"
        try:
            made = _git("worktree", "add", "--quiet", "--detach", str(tree), commit)
            if made.returncode:
                raise Refused(f"git cannot check {commit} out: {made.stderr.strip()}")
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def build(edgekd: list[str], target: str, out: Path) -> Path:
    """The bundle of the recipe for ``target``, built into the folder ``out`` by this ``edgekd``."""
    command = [*edgekd, "build", RECIPE, "--target", target, "--out", str(out), "--json"]
    done = subprocess.run(command, env=_environment(), stdout=subprocess.PIPE, text=True)
    # 4: the budget is missed, and the bundle is there: what that means for latency the gate tells.
    if done.returncode not in (0, 4):
        raise Refused(f"the build failed with exit code {done.returncode}", done.returncode)
    try:
        # Its folder has the target's own name, of which ``target`` may be an alias or a file.
        return Path(json.loads(done.stdout)["bundles"][0]["path"])
    except (ValueError, LookupError, TypeError) as error:
        raise Refused(f"the build named no bundle on stdout but {done.stdout[:200]!r}", INTERNAL) from error


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    # As a cancelled job ends: what was started ends too, and the worktree goes.
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main())
