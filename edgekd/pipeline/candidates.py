"""The candidates of one target: lowered, compiled, each proven; a form that does not hold is left out and told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgekd.backends import Backend
from edgekd.errors import EdgekdError, Missing, ProofFailed, StoreFailed
from edgekd.forms import CompiledModel, Master, QuantForm
from edgekd.measure.proof import Hop, onnx_inside, onnx_run, prove
from edgekd.pipeline.drift import compiling, drift_of, with_layer
from edgekd.runtime.spec import load_arrays
from edgekd.stage import Progress
from edgekd.target import Target

# What the proof of a form with layers left in float begins with.
IN_FLOAT = "master in float"


@dataclass
class Made:
    """One candidate: its row of choice.json (what is known of it), and what the backend made of it."""

    row: dict[str, Any]
    compiled: CompiledModel


class CandidateMaker:
    """Makes candidates of the network in ``folder`` below ``out``: each form lowered, checked, compiled and proven.

    ``made`` has those that hold, ``left`` the forms that were left out, with why; no graph is made twice.
    """

    def __init__(self, backend: Backend, target: Target, folder: Path, out: Path, progress: Progress) -> None:
        self.backend, self.target, self.folder, self.out, self.progress = backend, target, folder, out, progress
        self.made: list[Made] = []
        self.left: list[dict[str, str]] = []
        self._seen: set[bytes] = set()

    def add(self, form: QuantForm, *, needed: bool = False) -> Made | None:
        """The candidate of a form, appended to ``made``; None where it is left out, or is another one's graph.

        Raises:
            EdgekdError: a form that is ``needed`` cannot be lowered or compiled, or does not hold.
        """
        try:
            model = lowered(self.folder, form, vnni=self.target.has_vnni())
            graph = model.graph.SerializeToString() + form.float_type.encode()
            integers = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
            # A network may have none of the layers that a form leaves in float, or nothing but those.
            if graph in self._seen or integers != form.integer:
                return None
            self._seen.add(graph)
            one = self._make(form, model)
        except (Missing, StoreFailed):
            raise
        except EdgekdError as error:
            if needed:
                raise
            self.left.append({"name": form.name, "why": error.what})
            self.progress.log(f"{self.target.name}: {form.name} is left out: {error.what}")
            return None
        self.made.append(one)
        return one

    def prove(self, form: QuantForm, compiled: CompiledModel) -> list[dict[str, Any]]:
        """What the proof found, hop by hop (`proof_hops`), on the quantize stage's samples.

        Raises:
            ProofFailed: the form does not hold.
        """
        stored = load_arrays(self.folder / "proof_samples.npz")
        with TemporaryDirectory() as scratch:
            hops = proof_hops(self.backend, self.target, self.folder, form, compiled, Path(scratch))
            try:
                results = prove(hops, stored["samples"], stored["labels"], floating=stored["outputs"])
                return [result.to_json() for result in results]
            except ProofFailed as error:
                place = compiled.path.parent
                drift = drift_of(self.backend, self.target, self.folder, form, compiled, place)
                raise with_layer(error, drift) from error

    def _make(self, form: QuantForm, model: Any) -> Made:
        from edgekd.lower import overflow_rows

        place = self.out / "candidates" / form.name
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(model.SerializeToString())
        compiled = self.backend.compile(place / "model.onnx", self.target, place, form=form)
        overflow: list[dict[str, Any]] = []
        if form.integer:
            overflow = overflow_rows(Master.load(self.folder), model, form, vnni=self.target.has_vnni())
        row = {
            "name": form.name,
            "integer": form.integer,
            "form": form.to_json(),
            "onnx": compiled.onnx.relative_to(self.out).as_posix(),
            "path": compiled.path.relative_to(self.out).as_posix(),
            "size_bytes": compiled.path.stat().st_size,
            "meta": compiled.meta,
            "overflow": overflow,
            "proof": self.prove(form, compiled),
        }
        return Made(row, compiled)


def make_candidates(backend: Backend, target: Target, folder: Path, out: Path, progress: Progress) -> CandidateMaker:
    """Every form that the backend offers of the network in ``folder``, the float one last in ``made``.

    Float forms come from the float student, integer ones from the master. The rules' own choice and the float form
    must hold; another form that fails is left out.

    Raises:
        ProofFailed: the rules' own choice, or float, does not hold.
    """
    forms = backend.candidates(target)
    progress.task(f"{target.name}: candidates", len(forms))
    maker = CandidateMaker(backend, target, folder, out, progress)
    for form in forms:
        maker.add(form, needed=form is forms[0] or form is forms[-1])
        progress.advance(1)
    return maker


def lowered(folder: Path, form: QuantForm, *, vnni: bool) -> Any:
    """The ONNX model of a form, integer forms from the master and checked against it."""
    # Here, and not above: what measures a bundle imports this package without the part that builds.
    from edgekd.lower import check_lowering, lower

    if not form.integer:
        return lower(Master(_start(folder, form), ()), form)
    master = Master.load(folder)
    model = lower(master, form, vnni=vnni)
    check_lowering(master, model, form, vnni=vnni)
    return model


def session_run(session: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A session of one input and one output as a function of arrays."""
    name, output = session.inputs[0].name, session.outputs[0].name
    return lambda x: session.run({name: x})[output]


def compiled_model(folder: Path, row: dict[str, Any], target: Target) -> CompiledModel:
    """The compiled candidate that a row of choice.json describes."""
    return CompiledModel(target.backend, folder / row["path"], folder / row["onnx"], row["meta"])


def proof_hops(
    backend: Backend, target: Target, folder: Path, form: QuantForm, compiled: CompiledModel, scratch: Path
) -> list[Hop]:
    """The hops from the master (or the float student) to the compiled model, where it can run here.

    Where layers that quantize badly are left in float the master is no measure: it has the error that they were left
    for. Such a form is compared with the master's weights in float, which it must be as near to as any useful network.
    These lie in ``scratch``, as long as the hops are run.
    """
    start = _start(folder, form)
    if form.float_layers:
        start = scratch / f"{IN_FLOAT}.onnx"
        start.write_bytes(master_in_float(folder, form).SerializeToString())
    hops = [
        Hop(start.stem, run=onnx_run(start), inside=partial(onnx_inside, start)),
        Hop(
            "lowered",
            run=onnx_run(compiled.onnx),
            kind="relaxing" if form.integer else "equal" if form.exact else "rounding",
            inside=partial(onnx_inside, compiled.onnx),
        ),
    ]
    if target.is_here():
        run = session_run(backend.load(compiled, target))
        hops.append(Hop("compiled", run=run, kind=compiling(form, compiled)))
    return hops


def master_in_float(folder: Path, form: QuantForm) -> Any:
    """The master's network without quantizers, as the ONNX model that ``form``'s backend would get of it."""
    from edgekd.lower import lower

    pure = replace(form, name=IN_FLOAT, float_groups=frozenset({"all"}), float_layers=frozenset())
    return lower(Master(folder / "master.onnx", ()), pure)


def _start(folder: Path, form: QuantForm) -> Path:
    """What lowering begins with."""
    return folder / ("master.onnx" if form.integer else "float.onnx")
