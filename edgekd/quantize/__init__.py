"""Quantize once, in the strictest form: prepared by torchao's pt2e, calibrated, trained when asked, written as master."""

from edgekd.quantize.ladder import Outcome, quantize
from edgekd.quantize.master import export_float, write_master
from edgekd.quantize.prepared import Prepared, prepare

__all__ = ["Outcome", "Prepared", "export_float", "prepare", "quantize", "write_master"]
