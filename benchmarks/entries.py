"""The files of one network on one backend: edgekd's candidates and the other tools', scored and ready to be timed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from peers import peer_makers
from starts import NetworkFiles, snr_db

from edgekd.backends import Backend
from edgekd.errors import EdgekdError
from edgekd.forms import CompiledModel, QuantForm
from edgekd.measure import ModelSpec
from edgekd.measure.proof import prove
from edgekd.pipeline.candidates import CandidateMaker, Made, proof_hops, session_run
from edgekd.pipeline.mixed import PAYING, with_short_floats
from edgekd.pipeline.mixed_speed import profile_layers
from edgekd.runtime.process import start
from edgekd.stage import NoProgress
from edgekd.target import Target


@dataclass
class Entry:
    """One file in one runtime: whose it is, whether it is integer, its row, how to time it, and what is profiled."""

    name: str
    ours: bool
    integer: bool
    row: dict[str, Any]
    spec: ModelSpec
    compiled: CompiledModel


def our_entries(files: NetworkFiles, backend: Backend, target: Target) -> tuple[list[Entry], list[dict[str, str]]]:
    """edgekd's candidates as a build makes them, float last, and those left out; a form twice the same once.

    Among them are those in mixed precision, without the layers whose integers gain no time by the runtime's profile.
    """
    forms = backend.candidates(target)
    maker = _Maker(files, backend, target)
    for form in forms[:-1]:
        maker.add(form, needed=form is forms[0])
    if maker.made and forms[0].integer:
        made = [QuantForm.from_json(one.row["form"]) for one in maker.made]
        base = with_short_floats(made)
        for form in _paying(files, backend, target, made[base], maker.made[base]):
            maker.add(form)
    maker.add(forms[-1], needed=True)
    entries = []
    for one in maker.made:
        name, integer = one.row["name"], one.row["integer"]
        entries.append(_entry(files, backend, target, one.compiled, name, ours=True, integer=integer))
        entries[-1].row["proof"] = one.row["proof"]
    return entries, maker.left


class _Maker(CandidateMaker):
    """Keeps, and tells, a form that does not hold: random networks may make much of the smallest difference."""

    def __init__(self, files: NetworkFiles, backend: Backend, target: Target) -> None:
        super().__init__(backend, target, files.folder, files.folder / target.name, NoProgress())
        self.files = files

    def prove(self, form: QuantForm, compiled: CompiledModel) -> Any:
        """ "ok", or what a build would say, on the held-out samples."""
        files = self.files
        hops = proof_hops(self.backend, self.target, files.folder, form, compiled, compiled.path.parent)
        try:
            prove(hops, files.held_out, files.reference.argmax(1), floating=files.reference)
        except EdgekdError as error:
            return error.what
        return "ok"


def _paying(files: NetworkFiles, backend: Backend, target: Target, form: QuantForm, made: Made) -> list[QuantForm]:
    """The rules' own choice without the layers whose integers gain no time, as a build finds them."""
    scratch = files.folder / target.name / "profile"
    found = profile_layers(backend, target, files.folder, made, scratch, files.calibration[:1], NoProgress())
    return [
        replace(form, name=name, float_layers=found.values(kept))
        for name, (kept, _) in zip(PAYING, found.floats, strict=False)
    ]


def peer_entries(files: NetworkFiles, backend: Backend, target: Target) -> tuple[list[Entry], list[dict[str, str]]]:
    """The other tools' int8 files, in each inference precision the backend has here; those that fail, with the words.

    The float forms are edgekd's own, which are nobody's.
    """
    entries: list[Entry] = []
    failed: list[dict[str, str]] = []
    precisions = ["f32"]
    if any(form.float_type == "bf16" for form in backend.candidates(target)):
        precisions.append("bf16")
    for name, make in peer_makers(files.name, backend.name, vnni=target.has_vnni()).items():
        place = files.folder / target.name / "peers" / name
        place.mkdir(parents=True)
        try:
            path = make(files.folder / "plain.onnx", files.calibration, place)
            for precision in precisions:
                label = name if precision == "f32" else f"{name}, {precision} rest"
                compiled = CompiledModel(backend.name, path, path, {"inference_precision": precision})
                spec = _spec(files, backend, target, compiled, label)
                with start(spec) as worker:  # a runtime that crashes on another's file takes nothing along
                    worker.load(spec)
                entries.append(_entry(files, backend, target, compiled, label, ours=False, integer=True))
        except Exception as error:  # another's tool may raise anything
            failed.append({"name": name, "error": f"{type(error).__name__}: {error}"[:600]})
    return entries, failed


def _entry(
    files: NetworkFiles,
    backend: Backend,
    target: Target,
    compiled: CompiledModel,
    name: str,
    *,
    ours: bool,
    integer: bool,
) -> Entry:
    run = session_run(backend.load(compiled, target))
    # One at a time: that is the form that is timed.
    outputs = np.concatenate([run(sample[None]) for sample in files.held_out])
    layers = backend.coverage(compiled, target)
    weights = {compiled.path, compiled.path.with_suffix(".bin")}  # OpenVINO's own format has two files
    row = {
        "name": name,
        "snr_db": snr_db(outputs, files.reference),
        "agreement": float((outputs.argmax(1) == files.reference.argmax(1)).mean()),
        "top1": files.top1(outputs),
        "integer": sum(layer.integer for layer in layers),
        "compute": len(layers),
        "precision": compiled.meta["inference_precision"],
        "size_bytes": sum(path.stat().st_size for path in weights if path.exists()),
    }
    return Entry(name, ours, integer, row, _spec(files, backend, target, compiled, name), compiled)


def _spec(files: NetworkFiles, backend: Backend, target: Target, compiled: CompiledModel, label: str) -> ModelSpec:
    """How a measuring process opens a file and what it runs it on."""
    return ModelSpec.of(backend, compiled, target, files.feeds(), files.folder / "feeds", label=label)
