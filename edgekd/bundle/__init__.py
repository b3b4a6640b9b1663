"""Bundles: a folder with a model, its goldens, the runtime for the device, a manifest and the evidence."""

from edgekd.bundle.golden import Golden, GoldenOutput, Tolerance, golden_outputs, make_golden
from edgekd.bundle.load import Bundle, append_measurement, load_bundle, load_model, verify_bundle
from edgekd.bundle.pack import Contents, PackedCandidate, pack
from edgekd.bundle.publish import check_destination, publish

__all__ = [
    "Bundle",
    "Contents",
    "Golden",
    "GoldenOutput",
    "PackedCandidate",
    "Tolerance",
    "append_measurement",
    "check_destination",
    "golden_outputs",
    "load_bundle",
    "load_model",
    "make_golden",
    "pack",
    "publish",
    "verify_bundle",
]
