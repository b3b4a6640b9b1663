"""Samples flow through the float network, and every site's range is estimated: in the memory of a few samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.fx import GraphModule
from torchao.quantization.pt2e import FakeQuantizeBase

from edgekd.data.calibration import samples_at_once
from edgekd.errors import BadData
from edgekd.quantize.clipping import Steps, strict_steps
from edgekd.quantize.observers import observes_weight
from edgekd.quantize.ranges import SiteRange
from edgekd.target import CalibrationPolicy

# Constant sites that a note names.
NAMED = 4


def calibrate(
    module: GraphModule,
    batches: Iterable[Tensor],
    policy: CalibrationPolicy,
    places: Mapping[str, str],
    steps: Mapping[str, Steps],
) -> tuple[str, ...]:
    """Set the range of every quantizer of ``module``, whose quantizers do nothing meanwhile; returns notes.

    ``places`` tells a user where each quantizer sits, by its name, and ``steps`` those of its grid where it is not the
    strict one.

    Raises:
        BadData: NaN or infinity reaches a quantizer, or there are no samples.
    """
    quantizers: dict[str, FakeQuantizeBase] = {name: module.get_submodule(name) for name in places}  # type: ignore[misc]
    weights = [quantizer for quantizer in quantizers.values() if observes_weight(quantizer)]
    ranges = {
        name: SiteRange(policy, steps.get(name, strict_steps))
        for name, quantizer in quantizers.items()
        if not observes_weight(quantizer)
    }
    seen = 0
    with _watching(quantizers, ranges):
        for part in _parts(batches, policy.batch_size):
            # Weights do not change from part to part.
            for weight in weights:
                weight.enable_observer(seen == 0)
            module(part)
            _check(quantizers, ranges, places)
            seen += len(part)
            if seen % policy.batch_size == 0:
                _end_batch(ranges)
    if seen == 0:
        raise BadData("there are no samples", where="calibration", remedy="add training samples")
    if seen % policy.batch_size:
        _end_batch(ranges)
    for name, one in ranges.items():
        one.settle(quantizers[name])
    return _notes([places[name] for name, one in ranges.items() if one.constant])


def not_finite(place: str) -> BadData:
    """What is raised where NaN or infinity flows through ``place``."""
    return BadData(
        "NaN or infinity flows through the network during calibration",
        where=f"calibration, {place}",
        remedy="look for NaN in the calibration samples or in the weights",
    )


def _parts(batches: Iterable[Tensor], batch_size: int) -> Iterator[Tensor]:
    """The samples in parts as large as memory allows, each within one batch of ``batch_size`` samples."""
    seen = 0
    for batch in batches:
        rest = batch
        while len(rest):
            count = min(samples_at_once(rest.shape[1:]), batch_size - seen % batch_size)
            yield rest[:count]
            seen += len(rest[:count])
            rest = rest[count:]


@contextmanager
def _watching(quantizers: Mapping[str, FakeQuantizeBase], ranges: Mapping[str, SiteRange]) -> Iterator[None]:
    """What flows into a quantizer is seen by its range; one that sits in several places sees all of them."""
    handles = [
        quantizers[name].register_forward_pre_hook(lambda _, inputs, one=one: one.see(inputs[0]))
        for name, one in ranges.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check(
    quantizers: Mapping[str, FakeQuantizeBase], ranges: Mapping[str, SiteRange], places: Mapping[str, str]
) -> None:
    for name, place in places.items():
        finite = ranges[name].finite if name in ranges else bool(torch.isfinite(quantizers[name].scale).all())
        if not finite:
            raise not_finite(place)


def _end_batch(ranges: Mapping[str, SiteRange]) -> None:
    for one in ranges.values():
        one.end_batch()


def _notes(constant: list[str]) -> tuple[str, ...]:
    if not constant:
        return ()
    more = f" and {len(constant) - NAMED} more" if len(constant) > NAMED else ""
    return (
        f"calibration saw one value only at {', '.join(constant[:NAMED])}{more}: what else may flow there is not known",
    )
