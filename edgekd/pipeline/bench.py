"""Latency and memory of a bundle's model in fresh processes, on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekd.bundle import load_bundle, verify_bundle
from edgekd.bundle.failure import bundle_errors
from edgekd.errors import BadBundle, BadInput, ExitCode, Missing
from edgekd.measure.fresh import worker_errors
from edgekd.pipeline.alone import measuring_alone
from edgekd.runtime.bench import bench, wanted_spec
from edgekd.runtime.process import start
from edgekd.runtime.scenario import Settings
from edgekd.runtime.selection import select
from edgekd.runtime.sessions import RuntimeMissing, SessionError
from edgekd.runtime.verify import Check, exit_code
from edgekd.stage import NoProgress, Progress


def bench_bundle(path: Path, settings: Settings | None = None, *, progress: Progress | None = None) -> dict[str, Any]:
    """What `edgekd.runtime.bench.bench` measures; the settings are checked and the bundle is verified first.

    Nothing else of this user's measures meanwhile; ``progress`` is told when that is waited for.

    Raises:
        BadInput: the settings do not fit the model or this machine, or what is here is not what the bundle needs.
        BadBundle: it does not hold.
        Missing: its runtime is not here, or it needs its finalize step first.
        WorkerFailed: it crashed, hung or does not give its golden outputs.
    """
    wanted = settings or Settings()
    with _settings_errors(path):
        wanted.check()
    checks = verify_bundle(path, run=False)
    code = exit_code(checks)
    for check in checks:
        if code == ExitCode.BAD_INPUT and check.ok is False:
            raise BadBundle(f"{check.name}: {check.detail}", where=str(path), remedy="see: edgekd verify")
    _check_here(path, checks)
    with measuring_alone(progress or NoProgress()):
        _check_outputs(path, wanted)
        # Golden outputs held a moment ago, so what a session refuses now is what was asked of it.
        with bundle_errors(path), worker_errors(), _settings_errors(path):
            return {"bundle": str(path), **bench(path, wanted)}


def _check_here(path: Path, checks: list[Check]) -> None:
    """What is here and does not fit is refused as the gate refuses it; what is not here cannot be checked."""
    for check in checks:
        if check.ok is False:
            remedy = "bring what it needs, or build the bundle for what is here"
            raise BadInput(f"{check.name}: {check.detail}", where=str(path), remedy=remedy)
    for check in checks:
        if check.ok is None:
            what = f"{check.name} could not be checked: {check.detail}"
            raise Missing(what, where=str(path), remedy="bring what is named, or measure on a machine that has it")


def _check_outputs(path: Path, wanted: Settings) -> None:
    """Golden outputs, checked by a process of their own: a model may crash or hang."""
    manifest = load_bundle(path).manifest
    with tempfile.TemporaryDirectory() as scratch, bundle_errors(path), worker_errors(of_bundle=True):
        spec = wanted_spec(path, manifest, select(path, manifest), wanted, Path(scratch))
        with _settings_errors(path), start(spec) as worker:
            worker.load(spec)


@contextmanager
def _settings_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeMissing:
        raise
    except SessionError as error:
        raise BadInput(str(error), where=str(path)) from error
