"""Candidates in mixed precision, found for this network on this machine: the fewest floats that keep the accuracy, and
the integers that pay.

Both searches are bounded and told in choice.json; what they find is lowered, checked, compiled, proven and timed like
every other candidate.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekd.errors import EdgekdError, Missing, StoreFailed
from edgekd.forms import CompiledModel, QuantForm
from edgekd.pipeline.candidates import CandidateMaker, Made, lowered
from edgekd.pipeline.mixed_accuracy import Search, fewest_floats
from edgekd.pipeline.mixed_speed import profile_layers
from edgekd.runtime.spec import load_arrays

PAYING = ("int8-paying", "int8-paying-few")


def mixed_candidates(
    maker: CandidateMaker,
    *,
    accurate: bool,
    keeps: Callable[[CompiledModel], bool],
    scratch: Path,
) -> dict[str, Any]:
    """Append mixed candidates to the maker's; what was searched, JSON-ready.

    ``accurate``: whether the rules' first choice keeps the accuracy; ``keeps``: whether a compiled model does.
    """
    began, count = time.monotonic(), len(maker.made)
    first, layers = maker.made[0], _sensitivities(maker.folder)
    told: dict[str, Any] = {"accuracy": None, "speed": None, "layers": layers}
    floats: frozenset[str] = frozenset()
    if not accurate and layers:
        search = _search(maker, first, layers, keeps, scratch)
        told["accuracy"] = search.to_json()
        maker.progress.log(
            f"{maker.target.name}: {search.why} ({search.evaluations} models tried, {search.seconds:.0f} seconds)"
        )
        if search.kept is not None:
            floats = search.kept
            maker.add(_form(first, "int8-mixed", floats))
    if maker.target.is_here() and (accurate or floats):
        base = maker.made[with_short_floats([QuantForm.from_json(one.row["form"]) for one in maker.made])]
        told["speed"] = _paying(maker, base, floats, layers, scratch)
    told |= {"candidates": len(maker.made) - count, "seconds": round(time.monotonic() - began, 1)}
    return told


def _search(
    maker: CandidateMaker,
    first: Made,
    layers: list[dict[str, Any]],
    keeps: Callable[[CompiledModel], bool],
    scratch: Path,
) -> Search:
    measured = [row for row in layers if row["snr_db"] is not None]
    order = [row["name"] for row in sorted(measured, key=lambda row: row["snr_db"])]
    order += [row["name"] for row in layers if row["snr_db"] is None]

    def holds(kept: frozenset[str]) -> bool:
        form, place = _form(first, "tried", kept), scratch / "tried"
        place.mkdir(parents=True, exist_ok=True)
        try:
            model = lowered(maker.folder, form, vnni=maker.target.has_vnni())
            (place / "model.onnx").write_bytes(model.SerializeToString())
            return keeps(maker.backend.compile(place / "model.onnx", maker.target, place, form=form))
        except (Missing, StoreFailed):
            raise
        except EdgekdError as error:
            maker.progress.log(f"{maker.target.name}: {len(kept)} layers in float: {error.what}")
            return False

    return fewest_floats(order, holds)


def with_short_floats(forms: Sequence[QuantForm]) -> int:
    """Which form is the first with its float rest in another type, bf16, where layers in float cost least; else 0."""
    first = forms[0]
    return max(
        i for i, form in enumerate(forms) if replace(form, name=first.name, float_type=first.float_type) == first
    )


def _paying(
    maker: CandidateMaker, first: Made, floats: frozenset[str], layers: list[dict[str, Any]], scratch: Path
) -> dict[str, Any]:
    """Profile, make what promises to be faster, and add the times to the rows of ``layers``.

    ``floats``: layers that the accuracy needs in float. They are in every division, and what is promised is promised
    of the network with these alone in float.
    """
    began = time.monotonic()
    sample = load_arrays(maker.folder / "proof_samples.npz")["samples"][:1]
    found = profile_layers(
        maker.backend, maker.target, maker.folder, first, scratch / "profile", sample, maker.progress, floats
    )
    times = {row["name"]: row for row in found.layers}
    for row in layers:
        row |= {key: times.get(row["name"], {}).get(key) for key in ("integer_us", "float_us")}
    told = []
    for name, (kept, gain) in zip(PAYING, found.floats, strict=False):
        one = maker.add(_form(first, name, found.values(kept)))
        told.append({"name": name, "float_layers": len(kept), "promised_gain": gain, "made": one is not None})
    seconds = time.monotonic() - began
    maker.progress.log(f"{maker.target.name}: profiled, {found.why} ({seconds:.0f} seconds)")
    return {"tried": told, "seconds": round(seconds, 1), "why": found.why}


def _form(first: Made, name: str, floats: frozenset[str]) -> QuantForm:
    """The rules' own choice with some layers in float."""
    return replace(QuantForm.from_json(first.row["form"]), name=name, float_layers=floats)


def _sensitivities(folder: Path) -> list[dict[str, Any]]:
    """The rows of sensitivity.json for layers that the master has, by the names that forms know them by.

    A linear layer of more than two dimensions is a product and an addition in the master: there the layer is the
    product, and its value in torch is the sum.
    """
    import onnx

    from edgekd.lower.graph import Graph

    graph = Graph(onnx.load(folder / "master.onnx"))
    known = {layer.node.output[0] for layer in graph.layers()}
    rows = []
    for row in json.loads((folder / "sensitivity.json").read_text())["layers"]:
        node = graph.producer.get(row["name"])
        name = row["name"] if node is None else graph.without_bias(node).output[0]
        if name in known:
            rows.append(row | {"name": name})
    return rows
