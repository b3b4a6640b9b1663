"""From the master to each backend's form: ONNX to ONNX, relaxing only, never inventing a scale."""

from edgekd.lower.apply import lower
from edgekd.lower.check import check_lowering, overflow_rows

__all__ = ["check_lowering", "lower", "overflow_rows"]
