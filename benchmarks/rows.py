"""A row of int8_forms.py: one network on one backend, the fastest of edgekd's files against the others' fastest."""

from __future__ import annotations

import sys
from typing import Any

from columns import UNKNOWN
from entries import Entry, our_entries, peer_entries
from profiles import compare_profiles
from starts import TARGETS, NetworkFiles, Options

from edgekd.backends import get_backend
from edgekd.errors import EdgekdError
from edgekd.measure import Comparison, compare_all
from edgekd.pipeline.alone import measuring_alone
from edgekd.pipeline.candidates import lowered
from edgekd.stage import NoProgress
from edgekd.target import load_target

# TensorRT-RTX builds the forms of both: int8 is what a Jetson gets, whose own builder is not here.
BUILT_FOR = ("jetson-orin", "rtx")
# The first meeting: pairs of processes, and its share of the seconds.
RACE_PAIRS, RACE_SHARE = 3, 0.4
# Two files whose signal-to-noise ratios differ by less are equally accurate: other samples of the same kind move the
# difference between two files of one network by about a decibel.
ACCURATE_DB = 0.5


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
        **UNKNOWN,
        "float_top1": files.top1(files.reference),
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
            best = min([*others, *floats], key=lambda entry: ratios[entry.name])
            chosen = _choose(ours, bar, ratios, ratios[best.name])
            row |= _meet(chosen, best, floats[-1], options)
            if row["ours_over_best_peer"] > 1:
                try:
                    row["profile"] = compare_profiles(backend, target, chosen.compiled, best.compiled, files.feeds())
                except EdgekdError as error:  # what was measured stays
                    print(f"no profile: {error.what}", file=sys.stderr)
    layers = chosen.row["integer"], chosen.row["compute"]
    return row | {
        "form": chosen.name,
        "snr_db": chosen.row["snr_db"],
        "peer_snr_db": bar,
        "top1": chosen.row["top1"],
        "agreement": chosen.row["agreement"],
        "peer_agreement": max((entry.row["agreement"] for entry in others), default=None),
        "integer": layers[0],
        "compute": layers[1],
        "integer_coverage": layers[0] / layers[1] if layers[1] else None,
        "proof": chosen.row["proof"],
        "calibrated": files.calibrated,
        "calibrations_tried_db": files.tried,
        "ours": [entry.row for entry in ours],
        "peers": [entry.row for entry in others] + failed,
        "unmatched_peers": _unmatched(ours, others) if options.seconds else None,
        "left_out": left,
    }


def _choose(ours: list[Entry], bar: float | None, ratios: dict[str, float], quick: float) -> Entry:
    """The fastest of ours that is as accurate as the peers' best file and as fast as ``quick``, the fastest file.

    Where none is both, the fastest of those as accurate, or of all where no integer one is.
    """
    fit = _fitting(ours, bar)
    both = [entry for entry in fit if ratios[entry.name] <= quick]
    if not both and not any(entry.integer for entry in fit):
        fit = ours
    return min(both or fit, key=lambda entry: ratios[entry.name])


def _fitting(ours: list[Entry], bar: float | None) -> list[Entry]:
    """Ours that are as accurate as the peers' best file; float forms always are."""
    return [entry for entry in ours if bar is None or entry.row["snr_db"] >= bar - ACCURATE_DB or not entry.integer]


def _unmatched(ours: list[Entry], others: list[Entry]) -> list[str]:
    """The others' files than which none of ours is both as fast in the race and as accurate."""

    def matches(one: Entry, other: Entry) -> bool:
        return bool(
            one.row["race_over_float"] <= other.row["race_over_float"]
            and one.row["snr_db"] >= other.row["snr_db"] - ACCURATE_DB
        )

    return [other.name for other in others if not any(matches(one, other) for one in ours)]


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
    return {"model": files.name, "backend": "tensorrt-rtx", **UNKNOWN, "builds": builds, "calibrated": files.calibrated}
