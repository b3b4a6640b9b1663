"""From the master to each backend's form: ONNX to ONNX, relaxing only, never inventing a scale.

With one exception: the gate inside a HardSwish that is spelled out (`edgekd.lower.spelling`) is rounded to 1/255.
"""

from edgekd.lower.apply import lower
from edgekd.lower.check import check_lowering, overflow_rows

__all__ = ["check_lowering", "lower", "overflow_rows"]
