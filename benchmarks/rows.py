"""A row of int8_forms.py: one network on one backend, everybody's files made, scored and timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import samples
from peers import peer_makers

from edgekd.backends import Backend, get_backend
from edgekd.errors import EdgekdError
from edgekd.forms import CompiledModel
from edgekd.measure import Comparison, ModelSpec, compare_all
from edgekd.measure.proof import Hop, onnx_run, prove
from edgekd.pipeline.alone import measuring_alone
from edgekd.pipeline.candidates import lowered, session_run
from edgekd.quantize import calibrated, export_float, write_master
from edgekd.stage import NoProgress
from edgekd.target import Target, load_calibration, load_target

TARGETS = {"onnxruntime": "onnxruntime-cpu", "openvino": "openvino-cpu"}
# TensorRT-RTX builds the forms of both: int8 is what a Jetson gets, whose own builder is not here.
BUILT_FOR = ("jetson-orin", "rtx")
# The rule that the peers calibrate by too. (Bias correction fits the strict master: a finer form is further from float
# with it.)
POLICY = "min-max"
BATCH = 16
# The first meeting: pairs of processes, and its share of the seconds.
RACE_PAIRS, RACE_SHARE = 3, 0.4


@dataclass(frozen=True)
class Options:
    """What a run measures with; ``seconds`` of runs a row (0: not timed), ``pairs`` in the second meeting."""

    seconds: float = 60.0
    pairs: int = 8
    calibration: int = 64
    held_out: int = 64
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """What the samples are, and how long is measured."""
        return asdict(self) | {"images": "dead leaves, benchmarks/networks.py", "threads": 2, "batch": 1}


@dataclass(frozen=True)
class NetworkFiles:
    """One network: ``folder`` has float.onnx and master.onnx; samples (N, 3, 224, 224), ``reference`` (N, 1000)."""

    name: str
    folder: Path
    calibration: np.ndarray
    held_out: np.ndarray
    reference: np.ndarray
    calibrated: str
    master_snr_db: float | None
    master_error: str


@dataclass
class Entry:
    """One file in one runtime: whose it is, whether it is integer, its row, and how to time it."""

    name: str
    ours: bool
    integer: bool
    row: dict[str, Any]
    spec: ModelSpec


def make_files(name: str, network: torch.nn.Module, folder: Path, options: Options, *, size: int = 224) -> NetworkFiles:
    """A float file, and edgekd's master by the calibration that suits the calibration samples best."""
    calibration = samples(options.calibration, 2 * options.seed + 1, size)
    held_out = samples(options.held_out, 2 * options.seed + 2, size)
    export_float(network, calibration[:2], folder / "float.onnx")
    reference = _torch_outputs(network, held_out)
    how, error, snr = "", "", None
    try:
        prepared, how = _calibrate(network, calibration)
        write_master(prepared, calibration[:2], folder)
        snr = snr_db(_torch_outputs(prepared.module, held_out), reference)
    except EdgekdError as failure:  # the others' figures stand all the same
        error = f"{type(failure).__name__}: {failure}"
    return NetworkFiles(name, folder, calibration.numpy(), held_out.numpy(), reference, how, snr, error)


def measure_backend(files: NetworkFiles, backend_name: str, options: Options) -> dict[str, Any]:
    """The row; raises what edgekd's own forms raise."""
    if files.master_error:
        raise EdgekdError(files.master_error)
    if backend_name == "tensorrt-rtx":
        return _build_row(files)
    target = load_target(TARGETS[backend_name])
    backend = get_backend(target.backend)
    ours, left = our_entries(files, backend, target)
    others, failed = peer_entries(files, backend, target)
    floats = [entry for entry in ours if not entry.integer]
    bar = max((entry.row["snr_db"] for entry in others), default=None)
    chosen = _fitting(ours, bar)[0]
    row: dict[str, Any] = {
        "model": files.name,
        "backend": backend_name,
        "form": chosen.name,
        "ours_over_best_peer": None,
        "ours_over_float": None,
        "best_peer": None,
        "interval": None,
        "ours_ms": None,
        "best_peer_ms": None,
        "float_ms": None,
    }
    race: list[Comparison] = []
    if options.seconds:
        with measuring_alone(NoProgress()):
            race = _race([*ours, *others], floats[-1], options)
            ratios = {one.label: one.ratio for one in race} | {floats[-1].name: 1.0}
            for entry in [*ours, *others]:
                entry.row["race_over_float"] = ratios[entry.name]
            chosen = min(_fitting(ours, bar), key=lambda entry: ratios[entry.name])
            best = min([*others, *floats], key=lambda entry: ratios[entry.name])
            row |= _meet(chosen, best, floats[-1], options)
    layers = chosen.row["integer"], chosen.row["compute"]
    return row | {
        "form": chosen.name,
        "snr_db": chosen.row["snr_db"],
        "peer_snr_db": bar,
        "agreement": chosen.row["agreement"],
        "peer_agreement": max((entry.row["agreement"] for entry in others), default=None),
        "integer": layers[0],
        "compute": layers[1],
        "integer_coverage": layers[0] / layers[1] if layers[1] else None,
        "proof": chosen.row["proof"],
        "calibrated": files.calibrated,
        "master_snr_db": files.master_snr_db,
        "ours": [entry.row for entry in ours],
        "peers": [entry.row for entry in others] + failed,
        "left_out": left,
    }


def our_entries(files: NetworkFiles, backend: Backend, target: Target) -> tuple[list[Entry], list[dict[str, str]]]:
    """edgekd's candidates as a build makes them, float last, and those left out; a form twice the same once."""
    entries: list[Entry] = []
    left: list[dict[str, str]] = []
    seen: set[bytes] = set()
    forms = backend.candidates(target)
    for form in forms:
        try:
            model = lowered(files.folder, form, vnni=target.has_vnni())
            graph = model.graph.SerializeToString() + form.float_type.encode()
            integers = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
            if graph in seen or integers != form.integer:
                continue
            seen.add(graph)
            place = files.folder / target.name / form.name
            place.mkdir(parents=True)
            (place / "model.onnx").write_bytes(model.SerializeToString())
            compiled = backend.compile(place / "model.onnx", target, place, form=form)
        except EdgekdError as error:
            if form is forms[0] or form is forms[-1]:
                raise
            left.append({"name": form.name, "why": error.what})
            continue
        entry = _entry(files, backend, target, compiled, form.name, ours=True, integer=form.integer)
        entry.row["proof"] = _proof(files, backend, target, compiled, integer=form.integer)
        entries.append(entry)
    return entries, left


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
            path = make(files.folder / "float.onnx", files.calibration, place)
            for precision in precisions:
                label = name if precision == "f32" else f"{name}, {precision} rest"
                compiled = CompiledModel(backend.name, path, path, {"inference_precision": precision})
                entries.append(_entry(files, backend, target, compiled, label, ours=False, integer=True))
        except Exception as error:  # another's tool may raise anything
            failed.append({"name": name, "error": f"{type(error).__name__}: {error}"[:600]})
    return entries, failed


def snr_db(outputs: np.ndarray, reference: np.ndarray) -> float:
    """Power of the reference over that of the difference, in dB; capped at 200, where they are equal."""
    noise = np.square(outputs.astype(np.float64) - reference).sum()
    power = np.square(reference.astype(np.float64)).sum()
    return float(10 * np.log10(power / max(noise, power * 1e-20)))


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
        "integer": sum(layer.integer for layer in layers),
        "compute": len(layers),
        "precision": compiled.meta["inference_precision"],
        "size_bytes": sum(path.stat().st_size for path in weights if path.exists()),
    }
    feeds = {"input": files.held_out[:1]}
    spec = ModelSpec.of(backend, compiled, target, feeds, files.folder / "feeds", label=name)
    return Entry(name, ours, integer, row, spec)


def _calibrate(network: torch.nn.Module, calibration: torch.Tensor) -> tuple[Any, str]:
    """The prepared network, ranges by `POLICY`."""
    policy = load_calibration(POLICY).model_copy(update={"samples": len(calibration), "batch_size": BATCH})
    return calibrated(network, calibration.split(BATCH), policy, equalization=False, bias_correction=False), POLICY


def _torch_outputs(module: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([module(batch) for batch in inputs.split(BATCH)]).numpy()


def _proof(files: NetworkFiles, backend: Backend, target: Target, compiled: CompiledModel, *, integer: bool) -> str:
    """ "ok", or what a build would say: the hops from the master (or the float file) to the compiled model."""
    exact = not integer and compiled.meta["inference_precision"] == "f32"
    start = files.folder / ("master.onnx" if integer else "float.onnx")
    hops = [
        Hop(start.stem, run=onnx_run(start)),
        Hop("lowered", run=onnx_run(compiled.onnx), kind="relaxing" if integer else "equal" if exact else "rounding"),
    ]
    if target.is_here():
        run = session_run(backend.load(compiled, target))
        hops.append(Hop("compiled", run=run, kind="kernels" if exact else "rounding"))
    try:
        prove(hops, files.held_out, files.reference.argmax(1))
    except EdgekdError as error:
        return error.what
    return "ok"


def _fitting(ours: list[Entry], bar: float | None) -> list[Entry]:
    """Ours that are as accurate as the peers' best file; where no integer one is, all."""
    fit = [entry for entry in ours if bar is None or entry.row["snr_db"] >= bar]
    return fit if any(entry.integer for entry in fit) else ours


def _race(entries: list[Entry], against: Entry, options: Options) -> list[Comparison]:
    specs = [entry.spec for entry in entries if entry is not against]
    seconds = RACE_SHARE * options.seconds / (RACE_PAIRS * len(specs))
    return compare_all(specs, against.spec, pairs=RACE_PAIRS, seconds=seconds, seed=options.seed)


def _meet(chosen: Entry, best: Entry, plain: Entry, options: Options) -> dict[str, Any]:
    """Chosen against the best peer, and against fp32, measured anew in the same rounds."""
    others = [entry for entry in dict.fromkeys([best.name, plain.name]) if entry != chosen.name]
    by_name = {entry.name: entry for entry in (best, plain)}
    seconds = (1 - RACE_SHARE) * options.seconds / (options.pairs * max(len(others), 1))
    found = compare_all(
        [by_name[name].spec for name in others],
        chosen.spec,
        pairs=options.pairs,
        seconds=seconds,
        seed=options.seed + 1,
    )
    # Ours may be the float form itself: then it is as fast as it is.
    by_label = {one.label: one for one in found}
    to_best, to_float = by_label.get(best.name), by_label.get(plain.name)
    return {
        "best_peer": best.name,
        "ours_over_best_peer": 1 / to_best.ratio if to_best else 1.0,
        "interval": [1 / to_best.high, 1 / to_best.low] if to_best else [1.0, 1.0],
        "ours_over_float": 1 / to_float.ratio if to_float else 1.0,
        "float_interval": [1 / to_float.high, 1 / to_float.low] if to_float else [1.0, 1.0],
        "ours_ms": found[0].against_median_ms if found else None,
        "best_peer_ms": to_best.median_ms if to_best else None,
        "float_ms": to_float.median_ms if to_float else None,
    }


def _build_row(files: NetworkFiles) -> dict[str, Any]:
    """What the parser and builder of TensorRT-RTX say of every form: "ok", or their words."""
    builds: dict[str, str] = {}
    for target_name in BUILT_FOR:
        target = load_target(target_name)
        backend = get_backend(target.backend)
        for form in backend.candidates(target):
            name = f"{target_name} {form.name}"
            place = files.folder / target_name / form.name
            place.mkdir(parents=True)
            try:
                model = lowered(files.folder, form, vnni=True)
                (place / "model.onnx").write_bytes(model.SerializeToString())
                meta = backend.compile(place / "model.onnx", target, place, form=form).meta
                builds[name] = meta.get("builder_check", "ok")
            except EdgekdError as error:
                builds[name] = error.what
    return {"model": files.name, "backend": "tensorrt-rtx", "builds": builds, "calibrated": files.calibrated}
